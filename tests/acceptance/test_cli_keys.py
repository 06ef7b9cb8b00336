"""Commands for tenants and keys, as an operator runs them."""

import asyncio
import json
import os
import pty
import sys
import termios

from audit_service.console import EXIT_BAD, EXIT_GOOD, EXIT_UNKNOWN
from audit_service.core.api_key import format_key, public_id
from tests.support.apps import open_api
from tests.support.commands import PATIENCE_SECONDS, tell
from tests.support.credentials import ask
from tests.support.postgres import TestDatabase


async def test_a_tenant_is_created_listed_and_used(database: TestDatabase) -> None:
    """The key that is printed once opens the new log."""
    made = await tell(database, "tenants", "create", "example-hosting", "--json")
    assert (made.status, made.err) == (EXIT_GOOD, b"")
    created = json.loads(made.out)
    listed = json.loads((await tell(database, "tenants", "list", "--json")).out)
    assert [tenant["name"] for tenant in listed] == ["default", "example-hosting", "system"]
    assert listed[1] == {name: created[name] for name in ("name", "log_key", "created_at")}
    assert created["key"]["key"].encode() not in (await tell(database, "tenants", "list")).out
    async with open_api(database, key=created["key"]["key"]) as api:
        (receipt,) = await api.accept({"action": "x"})
        assert (receipt["origin"], receipt["seq"]) == (created["origin"], 0)
    told = await tell(database, "tenants", "create", "another")
    assert (told.status, len(told.out), b"shown only now" in told.err) == (EXIT_GOOD, 66, True)


async def test_a_name_that_is_taken_or_bad_is_one_line_and_exit_2(database: TestDatabase) -> None:
    """And makes nothing."""
    assert await tell(database, "tenants", "create", "default") == (
        EXIT_UNKNOWN, b"", b"audit-service: there is a tenant of that name\n"
    )  # fmt: skip
    told = await tell(database, "tenants", "create", "Not A Name")
    assert (told.status, told.out, b"must be 1 to 63" in told.err, b"Not A" in told.err) == (
        EXIT_UNKNOWN,
        b"",
        True,
        False,
    )


async def test_a_limited_key_is_created(database: TestDatabase) -> None:
    """Every limit has an option; it is shown with the key, and holds."""
    options = (
        "--client", "node-7", "--server", "s1", "--server", "s2", "--no-global-events", "--category", "server", "--source-id", "node-7",
        "--network", "127.0.0.0/8", "--no-ips", "--no-emails", "--staff-as", "Support", "--audit-entries", "--expires-days", "30",
    )  # fmt: skip
    told = await tell(database, "keys", "create", "node", "--scope", "ingest", "--scope", "read", *options, "--json")
    assert told.status == EXIT_GOOD, told.err
    created = json.loads(told.out)
    (shown,) = [
        key
        for key in json.loads((await tell(database, "keys", "list", "--json")).out)
        if key["key_id"] == created["key_id"]
    ]
    assert (shown["client"], shown["limits"]) == (
        "node-7",
        {
            "server_ids": ["s1", "s2"], "global_events": False, "categories": ["server"], "actor_id": None, "actor_type": None,
            "audit_entries": True,
            "ips": False, "emails": False, "staff_as": "Support", "source_id": "node-7", "networks": ["127.0.0.0/8"],
            "staff_types": ["admin", "administrator", "employee", "staff", "support"],
        },
    )  # fmt: skip
    async with open_api(database, key=created["key"]) as api:
        assert (
            await ask(api, "POST", "/v1/events", None, {"action": "server.x", "server_id": "s1"})
        ).status_code == 201
        assert (
            await ask(api, "POST", "/v1/events", None, {"action": "server.x", "server_id": "s3"})
        ).status_code == 403
    table = (await tell(database, "keys", "list")).out
    assert b"node-7" in table or b"node" in table


async def test_a_third_key_of_a_client_and_a_bad_limit_are_refused(database: TestDatabase) -> None:
    """One line that says why, with the place."""
    for _ in range(2):
        assert (await tell(database, "keys", "create", "x", "--scope", "read", "--client", "c")).status == EXIT_GOOD
    third = await tell(database, "keys", "create", "x", "--scope", "read", "--client", "c")
    assert (third.status, b"two live keys" in third.err) == (EXIT_UNKNOWN, True)
    bad = await tell(database, "keys", "create", "x", "--scope", "read", "--network", "10.0.0.1/8")
    assert (bad.status, b"/networks/0" in bad.err, b"10.0.0.1" in bad.err) == (EXIT_UNKNOWN, True, False)
    bad = await tell(database, "keys", "create", "x", "--scope", "read", "--server", "s1")
    assert (bad.status, b"/global_events" in bad.err) == (EXIT_UNKNOWN, True)


# --- keys check ---


async def check(text: str, *options: str) -> tuple[int, str]:
    """`keys check` with something piped in, where there is no database at all: (exit code, everything it said)."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "audit_service.cli", "keys", "check", *options),
        env={**os.environ, "AUDIT_DATABASE_URL": "postgresql://127.0.0.1:1/none", "AUDIT_DATA_DIR": "/nonexistent"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate(text.encode())
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_a_whole_key_a_typo_and_anything_else_are_told_apart_offline() -> None:
    """By the checksum; the key itself is never shown."""
    key, token = format_key(os.urandom(48)), format_key(os.urandom(48), "viewer_token")
    typo = key[:20] + ("a" if key[20] != "a" else "b") + key[21:]
    assert await check(key + "\n") == (EXIT_GOOD, f"an API key {public_id(key)}, whole\n")
    assert await check(f"  {token}") == (EXIT_GOOD, f"a viewer token {public_id(token)}, whole\n")
    for text, word in ((typo, "mistyped"), ("hunter2hunter2", "no key"), ("", "no key"), (key[:-1], "no key")):
        status, said = await check(text)
        assert (status, word in said) == (EXIT_BAD, True)
        assert not text or text not in said
    assert json.loads((await check(key, "--json"))[1]) == {"well_formed": True, "kind": "api_key", "id": public_id(key)}
    assert json.loads((await check(typo, "--json"))[1]) == {"well_formed": False, "kind": "api_key", "id": None}


async def test_a_key_that_is_typed_is_not_shown() -> None:
    """At a terminal it asks, and does not echo."""
    key = format_key(os.urandom(48))
    controller, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "audit_service.cli", "keys", "check"),
        stdin=terminal,
        stdout=asyncio.subprocess.PIPE,
        stderr=terminal,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            # What is typed before the echo is off is thrown away.
            while termios.tcgetattr(terminal)[3] & termios.ECHO:  # noqa: ASYNC110 - a terminal tells nobody
                await asyncio.sleep(0.02)
            os.write(controller, key.encode() + b"\n")
            said, _ = await process.communicate()
        shown = os.read(controller, 65536)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(terminal)
        os.close(controller)
    assert process.returncode == EXIT_GOOD
    assert said.decode() == f"an API key {public_id(key)}, whole\n"
    assert b"key" in shown
    assert key.encode() not in shown
