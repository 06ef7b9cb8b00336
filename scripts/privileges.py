"""What every database role may do, as exact SQL, read from the catalog of a migrated database: `docs/privileges.md`.

    python -m scripts.privileges > docs/privileges.md

Starts an embedded PostgreSQL in a temporary folder. tests/store/test_privileges.py holds the page against the catalog.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from audit_service.embedded import EmbeddedPostgres
from audit_service.store import migrate

HEAD = """# Database privileges

Generated from the catalog of a freshly migrated database by `python -m scripts.privileges > docs/privileges.md`; a test holds this page
against the catalog, so it is complete: whatever is not here, nobody was granted. Migrations run as `audit_owner`; a login of one's own is
made a member of the role it needs, as `deploy/roles.sh` does it, and the embedded PostgreSQL gives the roles logins with passwords of
their own. Owners also hold every right on what they own.

A definer function runs with the rights of its owner, with a `search_path` that nobody can redirect, and is the only way for its
callers to what it does. No role is a superuser, may create roles or databases, replicate or bypass row-level security.
"""
ROLES = """
    SELECT rolname AS name, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls AS mighty
    FROM pg_catalog.pg_roles WHERE rolname LIKE 'audit\\_%' ORDER BY rolname
"""
MEMBERSHIPS = """
    SELECT pg_get_userbyid(m.roleid) AS role, pg_get_userbyid(m.member) AS member
    FROM pg_catalog.pg_auth_members AS m
    WHERE pg_get_userbyid(m.member) LIKE 'audit\\_%' ORDER BY 1, 2
"""
# (grantee, privilege, object) of every grant that is not the owner's own.
GRANTS = """
    WITH held AS (
        SELECT 'DATABASE <database>' AS what, d.datdba AS owner, a.* FROM pg_catalog.pg_database AS d,
            aclexplode(COALESCE(d.datacl, acldefault('d', d.datdba))) AS a WHERE d.datname = current_database()
        UNION ALL
        SELECT format('SCHEMA %I', n.nspname), n.nspowner, a.* FROM pg_catalog.pg_namespace AS n,
            aclexplode(COALESCE(n.nspacl, acldefault('n', n.nspowner))) AS a
            WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
        UNION ALL
        SELECT format('%s %s', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass), c.relowner, a.*
            FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace,
            aclexplode(COALESCE(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) AS a
            WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT format('(%I) ON TABLE %s', t.attname, c.oid::regclass), c.relowner, a.*
            FROM pg_catalog.pg_attribute AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.attrelid
            JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace, aclexplode(t.attacl) AS a
            WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
        UNION ALL
        SELECT format('FUNCTION %s', p.oid::regprocedure), p.proowner, a.* FROM pg_catalog.pg_proc AS p
            JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace,
            aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) AS a
            WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')
    )
    SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee)::text END AS grantee, what,
           array_agg(privilege_type ORDER BY privilege_type COLLATE "C") AS privileges
    FROM held WHERE held.grantee <> owner GROUP BY 1, 2 ORDER BY 1, what COLLATE "C"
"""
OWNED = """
    SELECT pg_get_userbyid(owner) AS owner, what FROM (
        SELECT n.nspowner AS owner, format('SCHEMA %I', n.nspname) AS what FROM pg_catalog.pg_namespace AS n
            WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
        UNION ALL
        SELECT c.relowner, format('TABLE %s', c.oid::regclass) FROM pg_catalog.pg_class AS c
            JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    ) AS o WHERE pg_get_userbyid(owner) LIKE 'audit\\_%' ORDER BY 1, what COLLATE "C"
"""
DEFINERS = """
    SELECT p.oid::regprocedure::text AS what, pg_get_userbyid(p.proowner) AS owner, p.proconfig AS settings
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    WHERE p.prosecdef AND n.nspname NOT LIKE 'pg\\_%' ORDER BY p.oid::regprocedure::text COLLATE "C"
"""


async def privileges_page(connection: asyncpg.Connection) -> str:
    """The page about the database of an owner's connection."""
    roles = [row["name"] for row in await connection.fetch(ROLES)]
    lines = [HEAD, "## Roles", "", *(f"- `{role}`" for role in roles), ""]
    memberships = [f"GRANT {row['role']} TO {row['member']};" for row in await connection.fetch(MEMBERSHIPS)]
    lines += _sql("Memberships among them", memberships or ["-- none"])
    grants, owned = await connection.fetch(GRANTS), await connection.fetch(OWNED)
    for grantee in [*roles, "PUBLIC"]:
        statements = [f"ALTER {row['what']} OWNER TO {grantee};" for row in owned if row["owner"] == grantee]
        statements += [_grant(row["privileges"], row["what"], grantee) for row in grants if row["grantee"] == grantee]
        lines += _sql(grantee, statements or ["-- nothing"])
    lines += ["## Definer functions", "", "| function | runs as | settings |", "|---|---|---|"]
    for row in await connection.fetch(DEFINERS):
        lines.append(f"| `{row['what']}` | {row['owner']} | `{', '.join(row['settings'] or ())}` |")
    return "\n".join(lines) + "\n"


def _grant(privileges: Sequence[str], what: str, grantee: str) -> str:
    if what.startswith("("):
        columns, _, place = what.partition(" ")
        return f"GRANT {', '.join(f'{privilege} {columns}' for privilege in privileges)} {place} TO {grantee};"
    return f"GRANT {', '.join(privileges)} ON {what} TO {grantee};"


def _sql(title: str, statements: Sequence[str]) -> list[str]:
    return [f"## {title}", "", "```sql", *statements, "```", ""]


async def page_of(url: str) -> str:
    """The page about the database of an owner's URL."""
    connection = await asyncpg.connect(url)
    try:
        return await privileges_page(connection)
    finally:
        await connection.close()


def main() -> None:
    """Print the page."""
    with tempfile.TemporaryDirectory() as folder:
        postgres = EmbeddedPostgres(Path(folder) / "data")
        postgres.start()
        try:
            migrate.upgrade(postgres.url())
            print(asyncio.run(page_of(postgres.url())), end="")
        finally:
            postgres.stop()


if __name__ == "__main__":
    main()
