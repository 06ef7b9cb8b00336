"""Forgetting as an operator does it: the commands on a database; and under a real `serve`, from asking to a pruned log that verifies."""

import json
from typing import Any

import pytest

from audit_service.console import EXIT_GOOD, EXIT_UNKNOWN
from tests.acceptance.test_cli import Told, tell
from tests.support.api import Api

REASON = ("--reason", "as the test asks")
ANA = {"type": "user", "id": "u12", "name": "Ana Gómez", "email": "ana@example.com"}


async def json_of(told: Told) -> Any:
    """What a command with --json has said."""
    assert told.status == EXIT_GOOD, told.err.decode()
    return json.loads(told.out)


@pytest.fixture
async def filled(api: Api) -> Api:
    """Five events, three of them Ana's."""
    await api.accept(
        *({"id": f"e{number}", "action": "server.updated", "actor": ANA} for number in range(3)),
        {"id": "e3", "action": "auth.login", "actor": {"type": "user", "id": "u1"}},
        {"id": "e4", "action": "user.updated", "target": {"type": "user", "id": "u12"}, "description": "about Ana"},
    )
    return api


async def test_an_erasure_by_command(filled: Api, database: Any) -> None:
    arguments = ("erase", "--actor", "u12", "--request", "GDPR-1", *REASON)
    dry = await json_of(await tell(database, *arguments, "--dry-run", "--json"))
    assert dry == {"dry_run": True, "entries": 3, "values": 6, "held": 0, "damaged": 0, "control_entries": 0}
    unasked = await tell(database, *arguments)
    assert (unasked.status, b"add --yes" in unasked.err) == (EXIT_UNKNOWN, True)
    assert len(await filled.list(actor="u12")) == 3
    done = await json_of(await tell(database, *arguments, "--yes", "--json"))
    assert (done["entries"], done["control_entries"]) == (3, [5])
    assert await filled.list(actor="u12") == []
    again = await json_of(await tell(database, *arguments, "--yes", "--json"))
    assert (again["entries"], again["control_entries"]) == (0, [])
    target = await json_of(
        await tell(database, "erase", "--target", "user:u12", "--request", "r", *REASON, "--yes", "--json")
    )
    assert target["entries"] == 1
    events = await json_of(
        await tell(
            database, "erase", "--event", "e3", "--groups", "actor", "--request", "r", *REASON, "--yes", "--json"
        )
    )
    assert (events["entries"], events["values"]) == (1, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("erase", "--request", "r", *REASON),
        ("erase", "--actor", "a", "--event", "e", "--request", "r", *REASON),
        ("erase", "--target", "u12", "--request", "r", *REASON),
        ("erase", "--event", "e", "--actor-type", "user", "--request", "r", *REASON),
        ("erase", "--actor", "a", "--groups", "everything", "--request", "r", *REASON),
        ("clear", "--reason", "two\nlines", "--yes"),
        ("clear", "--reason", "x", "--tenant", "nobody", "--yes"),
        ("hold", "set", *REASON),
        ("hold", "set", "--from-seq", "3", *REASON),
        ("hold", "set", "--from-seq", "3", "--to-seq", "3", *REASON),
        ("hold", "lift", "--hold", "none", *REASON),
        ("retention", "unset"),
        ("requests", "run", "none"),
        ("requests", "refuse", "none"),
        ("prune", "--before", "3", *REASON),
        ("prune", "--before", "yesterday", "--dry-run", *REASON),
        ("prune", "--before", "3", "--dry-run", "--key", "no key", *REASON),
    ],
    ids=lambda arguments: " ".join(arguments[:4]),
)
async def test_a_command_that_makes_no_sense_is_one_line_and_exit_2(
    filled: Api, database: Any, arguments: tuple[str, ...]
) -> None:
    told = await tell(database, *arguments)
    assert (told.status, told.out) == (EXIT_UNKNOWN, b"")
    assert told.err.count(b"\n") >= 1
    assert b"Traceback" not in told.err
    assert len(await filled.list()) == 5


async def test_holds_by_command_keep_what_a_clear_would_take(filled: Api, database: Any) -> None:
    by_target = await json_of(await tell(database, "hold", "set", "--target", "user:u12", *REASON, "--json"))
    await json_of(await tell(database, "hold", "set", "--from-seq", "0", "--to-seq", "1", *REASON, "--json"))
    listed = await json_of(await tell(database, "hold", "list", "--json"))
    assert [(hold["target_id"], hold["from_seq"], hold["to_seq"]) for hold in listed] == [
        ("u12", None, None),
        (None, 0, 1),
    ]
    cleared = await json_of(await tell(database, "clear", *REASON, "--yes", "--json"))
    assert (cleared["entries"], cleared["held"]) == (3, 2)
    assert {event["id"] for event in await filled.list(category__not="audit")} == {"e0", "e4"}
    await json_of(await tell(database, "hold", "lift", "--hold", by_target["hold"], *REASON, "--json"))
    cleared = await json_of(await tell(database, "clear", *REASON, "--yes", "--json"))
    assert (cleared["entries"], cleared["held"]) == (1, 1)


async def test_policies_by_command(filled: Api, database: Any) -> None:
    assert (await tell(database, "retention", "set", "--days", "30", "--category", "auth")).status == EXIT_GOOD
    assert (await tell(database, "retention", "set", "--days", "365")).status == EXIT_GOOD
    listed = await json_of(await tell(database, "retention", "list", "--json"))
    assert [(row["category"], row["days"]) for row in listed] == [(None, 365), ("auth", 30)]
    ran = await json_of(await tell(database, "retention", "run", "--dry-run", "--json"))
    assert [(row["category"], row["entries"]) for row in ran] == [(None, 0), ("auth", 0)]
    assert (await tell(database, "retention", "unset", "--category", "auth")).status == EXIT_GOOD
    assert len(await json_of(await tell(database, "retention", "list", "--json"))) == 1


async def test_requests_by_command(filled: Api, database: Any) -> None:
    answers = [
        (await filled.client.post("/v1/retention/requests", json={"action": "clear", "reason": "x"})).json()
        for _ in range(2)
    ]
    listed = await json_of(await tell(database, "requests", "list", "--json"))
    assert {row["request_id"] for row in listed} == {answer["id"] for answer in answers}
    assert (await tell(database, "requests", "refuse", answers[0]["id"])).status == EXIT_GOOD
    done = await json_of(await tell(database, "requests", "run", answers[1]["id"], "--json"))
    assert (done["status"], done["result"]["entries"]) == ("done", 5)
