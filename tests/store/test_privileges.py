"""docs/privileges.md is what the catalog says, and the catalog says what the page's head promises."""

from pathlib import Path

import pytest
from scripts.privileges import DEFINERS, GRANTS, ROLES, privileges_page

from tests.support.postgres import TestDatabase

PAGE = Path(__file__).resolve().parents[2] / "docs" / "privileges.md"


async def test_the_page_of_privileges_is_current(database: TestDatabase) -> None:
    owner = await database.owner()
    # A copy of a database, as this one is, does not keep what the migration did to the database itself; check_drift looks at that.
    await owner.execute(f"REVOKE TEMPORARY ON DATABASE {database.name} FROM PUBLIC")
    page = await privileges_page(owner)
    await owner.close()
    assert page == PAGE.read_text("utf-8"), "run `python -m scripts.privileges > docs/privileges.md`"


@pytest.mark.parametrize(
    "statement",
    [
        "GRANT DELETE ON audit.entry TO audit_serving",
        "GRANT UPDATE (body) ON audit.entry TO audit_serving",
        "GRANT CREATE ON SCHEMA audit TO PUBLIC",
        "GRANT audit_eraser TO audit_serving",
        "CREATE FUNCTION audit.open() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE audit.entry OWNER TO audit_serving",
    ],
)
async def test_a_privilege_more_changes_the_page(database: TestDatabase, statement: str) -> None:
    owner = await database.owner()
    transaction = owner.transaction()
    await transaction.start()
    try:
        await owner.execute(statement)
        assert await privileges_page(owner) != PAGE.read_text("utf-8")
    finally:
        await transaction.rollback()
        await owner.close()


async def test_nothing_is_everybodys_and_every_definer_has_its_search_path(database: TestDatabase) -> None:
    owner = await database.owner()
    granted = await owner.fetch(GRANTS)
    definers = await owner.fetch(DEFINERS)
    roles = await owner.fetch(ROLES)
    await owner.close()
    public = {(row["what"], tuple(row["privileges"])) for row in granted if row["grantee"] == "PUBLIC"}
    assert {what for what, _ in public} <= {"DATABASE <database>", "SCHEMA public"}, public
    assert not [role["name"] for role in roles if role["mighty"]]
    assert len(definers) > 5
    for row in definers:
        assert "search_path=pg_catalog, pg_temp" in (row["settings"] or ()), row["what"]
