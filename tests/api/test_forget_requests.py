"""Asking to forget over HTTP: counted, put down, carried out by the keeper alone, told; and what is forgotten answers 410."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from pydantic import SecretStr

from audit_service import forgetting_request, keeper
from audit_service.api import schemas
from audit_service.core import control
from audit_service.keeper import Keeper
from audit_service.settings import Settings
from audit_service.store import forgetting, retention
from tests.support.api import Api
from tests.support.appends import owner
from tests.support.apps import add_key, add_tenant, dump, open_api
from tests.support.forgetting import AUTHOR, retention_pools
from tests.support.postgres import TestDatabase, default_log_id

RETENTION, ERASURES = "/v1/retention/requests", "/v1/erasures/requests"
ANA = {"type": "user", "id": "u12", "name": "Ana Gómez", "email": "ana@example.com"}


@pytest.fixture
async def api(database: TestDatabase) -> AsyncIterator[Api]:
    """Three events, two of them Ana's, one about her."""
    async with open_api(database) as opened:
        await opened.accept(
            {"id": "e0", "action": "auth.login", "actor": ANA, "context": {"ip": "203.0.113.9"}},
            {"id": "e1", "action": "server.updated", "actor": ANA, "before": {"ram": 4}, "after": {"ram": 8}},
            {"id": "e2", "action": "user.updated", "actor": {"type": "user", "id": "u1"}, "target": {"type": "user", "id": "u12"},
             "description": "Ana asked for it"},
        )  # fmt: skip
        yield opened


async def keep(database: TestDatabase, **settings: Any) -> None:
    """One round of the keeper, without a delay unless one is given."""
    async with retention_pools(database) as pools:
        given = {"retention_database_url": SecretStr(database.owner_url), "request_delay_seconds": 0, **settings}
        await Keeper(pools, Settings(**given)).look()


async def ask(api: Api, path: str, **body: Any) -> Any:
    """The answer to a request that is taken."""
    response = await api.client.post(path, json={"reason": "as the law asks", **body})
    assert response.status_code == (200 if body.get("dry_run") else 202), response.text
    answer = response.json()
    model = schemas.ForgetCounts if body.get("dry_run") else schemas.ForgetRequest
    model.model_validate_json(response.content)
    return answer


async def get(api: Api, path: str) -> Any:
    response = await api.client.get(path)
    assert response.status_code == 200, response.text
    return response.json()


async def test_an_erasure_is_counted_asked_for_carried_out_and_told(api: Api, database: TestDatabase) -> None:
    counts = await ask(api, ERASURES, actor={"id": "u12"}, dry_run=True)
    assert counts == {"dry_run": True, "entries": 2, "values": 5, "held": 0, "damaged": 0, "control_entries": 0}
    assert (await get(api, ERASURES))["requests"] == []
    asked = await ask(api, ERASURES, actor={"id": "u12"}, reference="GDPR-17")
    assert (asked["status"], asked["kind"], asked["details"]["actor"]) == ("pending", "erasure", {"id": "u12"})
    assert (await api.event("e0"))["actor"]["name"] == "Ana Gómez"  # HTTP only asks
    await keep(database)
    done = await get(api, f"{ERASURES}/{asked['id']}")
    assert (done["status"], done["details"]) == ("done", None)
    assert done["result"] == {"entries": 2, "values": 5, "held": 0, "damaged": 0, "control_entries": 1}
    assert (await get(api, ERASURES))["requests"] == [done]
    shown = await api.event("e0")
    assert (shown["erased"], shown["context"], shown["summary"]) == (
        ["actor", "actor_email", "ip"],
        None,
        "user logged in",
    )
    assert (await api.event("e1"))["changes"] == [{"path": "/ram", "op": "replace", "old": 4, "new": 8}]
    [entered, noted] = await api.list(category="audit")
    assert (noted["action"], noted["target"]["id"]) == ("audit.request.created", asked["id"])
    assert (entered["kind"], entered["by"], entered["reason"]) == ("erase", asked["asked_by"], "as the law asks")
    assert entered["details"]["request"] == sha256(b"GDPR-17").hexdigest()
    left = dump(database.owner_url)
    assert b"GDPR-17" not in left
    assert b"ana@example.com" not in left
    assert await api.list(actor="u12") == []


async def test_by_target_what_was_written_about_a_person_goes(api: Api, database: TestDatabase) -> None:
    await ask(api, ERASURES, target={"type": "user", "id": "u12"})
    await keep(database)
    shown = await api.event("e2")
    assert (shown["erased"], shown["description"], shown["target"]["id"]) == (["target", "text"], None, None)
    assert shown["actor"]["id"] == "u1"


async def test_single_events_and_groups(api: Api, database: TestDatabase) -> None:
    await ask(api, ERASURES, events=["e0", "e1", "never"], groups=["actor_email", "ip"])
    await keep(database)
    assert [(await api.event(name))["erased"] for name in ("e0", "e1", "e2")] == [
        ["actor_email", "ip"],
        ["actor_email"],
        [],
    ]


async def test_a_clear_takes_what_was_there_when_it_was_asked(api: Api, database: TestDatabase) -> None:
    assert (await ask(api, RETENTION, action="clear", dry_run=True))["entries"] == 3
    asked = await ask(api, RETENTION, action="clear")
    await api.accept({"id": "late", "action": "server.created"})
    await keep(database)
    assert (await get(api, f"{RETENTION}/{asked['id']}"))["result"]["entries"] == 3
    assert [event["id"] for event in await api.list(category__not="audit")] == ["late"]


async def test_a_dropped_event_is_gone_and_one_that_never_was_is_not_found(api: Api, database: TestDatabase) -> None:
    await ask(api, RETENTION, action="clear")
    await keep(database)
    for path, status in (("e0", 410), ("e1/revert", 410), ("never", 404)):
        response = await api.client.get(f"/v1/events/{path}")
        assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    # The receipt is for ever: the same event again is a replay, another under its id a conflict.
    replay = await api.post({"id": "e0", "action": "auth.login", "actor": ANA, "context": {"ip": "203.0.113.9"}})
    assert (replay.status_code, replay.headers["Idempotent-Replayed"]) == (200, "true")
    assert (await api.post({"id": "e0", "action": "other"})).status_code == 409
    other = await add_key(database, await add_tenant(database, "other"))
    async with open_api(database, key=other) as stranger:
        assert (await stranger.client.get("/v1/events/e0")).status_code == 404


async def test_the_same_erased_event_again_is_a_replay(api: Api, database: TestDatabase) -> None:
    """Its fingerprint, which would confirm a guess, is gone."""
    await ask(api, ERASURES, actor={"id": "u12"})
    await keep(database)
    assert (await api.post({"id": "e1", "action": "anything"})).status_code == 200
    async with owner(database) as connection:
        rows = await connection.fetch(
            "SELECT id FROM audit.receipt WHERE fingerprint IS NULL AND salt IS NULL AND kept ORDER BY id"
        )
    assert {"e0", "e1"} <= {row["id"] for row in rows}
    assert "e2" not in {row["id"] for row in rows}


async def test_policies_by_category_and_their_defaults(
    api: Api, database: TestDatabase, log_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the clock of a day later."""
    clock = forgetting.fetch_clock

    async def later(*arguments: Any) -> Any:
        return await clock(*arguments) + timedelta(days=1, minutes=1)

    monkeypatch.setattr(forgetting, "fetch_clock", later)
    await keep(database, retention_days=2, retention_categories={"auth": 1})
    assert [event["id"] for event in await api.list(category__not="audit", sort="seq")] == ["e1", "e2"]
    async with retention_pools(database) as pools:
        await retention.set_policy(pools.writes, log_id, "user", 1)
        await keep(database, retention_days=2, retention_categories={"auth": 1})
        assert [event["id"] for event in await api.list(category__not="audit")] == ["e1"]
        assert await retention.unset_policy(pools.writes, log_id, "user")
    await keep(database)
    assert [event["id"] for event in await api.list(category__not="audit")] == ["e1"]
    entered = [event["details"] for event in await api.list(action="audit.drop", sort="seq")]
    assert [(details["policy"], details["category"], details["count"]) for details in entered] == [
        ("age", "auth", 1),
        ("age", "user", 1),
    ]


async def test_a_request_waits_for_its_delay_and_can_be_refused(api: Api, database: TestDatabase, log_id: int) -> None:
    asked = await ask(api, RETENTION, action="clear")
    await keep(database, request_delay_seconds=3600)
    assert (await get(api, f"{RETENTION}/{asked['id']}"))["status"] == "pending"
    async with retention_pools(database) as pools:
        assert await retention.finish_request(pools.writes, log_id, asked["id"], "refused", None)
        assert not await retention.finish_request(pools.writes, log_id, asked["id"], "done", None)
    await keep(database)
    assert (await get(api, f"{RETENTION}/{asked['id']}"))["status"] == "refused"
    assert len(await api.list(category__not="audit")) == 3


async def test_after_an_event_s_target_was_erased_no_state_of_that_type_is_called_complete(
    api: Api, database: TestDatabase
) -> None:
    """It is found by target no more, and what it changed would be shown as it was before."""

    def vm(number: int, before: Any, after: Any, target: str = "v1") -> dict[str, Any]:
        action = "vm.updated" if before else "vm.created"
        target_of = {"type": "vm", "id": target} if target else {"type": "vm"}
        return {"id": f"h{number}", "action": action, "target": target_of, "before": before, "after": after}

    async def is_complete(target: str) -> bool:
        return bool((await get(api, f"/v1/targets/vm/{target}/history"))["state"]["complete"])

    await api.accept(
        vm(0, {}, {"ram": 1}), vm(1, {"ram": 1}, {"ram": 2}), vm(2, {"n": 1}, {"n": 2}, ""), vm(3, {}, {"n": 1}, "v2")
    )
    await ask(api, ERASURES, events=["e1"])
    await keep(database)
    assert (await is_complete("v1"), await is_complete("v2")) == (True, True)  # what had no target lost none
    await ask(api, ERASURES, events=["h1"])
    await keep(database)
    assert (await is_complete("v1"), await is_complete("v2")) == (False, True)  # v2 was created after it


async def test_as_installed_a_stolen_key_forgets_nothing_within_a_day(
    api: Api, database: TestDatabase, log_id: int
) -> None:
    asked = await ask(api, RETENTION, action="clear")
    default = Settings.model_fields["request_delay_seconds"].default
    await keep(database, request_delay_seconds=default)
    assert (await get(api, f"{RETENTION}/{asked['id']}"))["status"] == "pending"
    assert len(await api.list(category__not="audit")) == 3
    async with owner(database) as connection:
        await connection.execute(
            "UPDATE audit.request SET asked_at = asked_at - interval '1 day' WHERE log_id = $1", log_id
        )
    await keep(database, request_delay_seconds=default)
    assert (await get(api, f"{RETENTION}/{asked['id']}"))["status"] == "done"


async def test_what_fails_for_one_log_keeps_no_other_waiting(
    api: Api, database: TestDatabase, log_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await add_key(database, await add_tenant(database, "other"))
    carry_out = forgetting_request.carry_out_request

    async def fail_for_first(pools: Any, asked_log: int, *arguments: Any) -> Any:
        if asked_log == log_id:
            raise RuntimeError("broken")
        return await carry_out(pools, asked_log, *arguments)

    monkeypatch.setattr(keeper, "carry_out_request", fail_for_first)
    async with open_api(database, key=key) as other:
        await other.accept({"id": "o", "action": "x.y"})
        asked = [await ask(one, RETENTION, action="clear") for one in (api, other)]
        await keep(database)
        states = [
            (await get(one, f"{RETENTION}/{a['id']}"))["status"] for one, a in zip((api, other), asked, strict=True)
        ]
        assert states == ["pending", "done"]


async def test_a_request_that_cannot_be_carried_out_keeps_no_other_and_no_policy_waiting(
    api: Api, database: TestDatabase, log_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The serving role may put down what it likes; what none can carry out is tried again for ever."""
    applied = []

    async def note(*arguments: Any) -> None:
        applied.append(arguments[1])

    monkeypatch.setattr(keeper, "run_policies", note)
    pools = database.open()
    await retention.add_request(pools.writes, log_id, "a", "retention", "k", "as nobody asks", {})
    await pools.dispose()
    asked = await ask(api, ERASURES, actor={"id": "u12"})
    await keep(database)
    assert (await get(api, f"{RETENTION}/a"))["status"] == "pending"
    assert (await get(api, f"{ERASURES}/{asked['id']}"))["status"] == "done"
    assert log_id in applied


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        (RETENTION, {"action": "prune", "reason": "x"}, "/action"),
        (RETENTION, {"action": "clear"}, "/reason"),
        (RETENTION, {"action": "clear", "reason": ""}, "/reason"),
        (RETENTION, {"action": "clear", "reason": "two\nlines"}, "/reason"),
        (RETENTION, {"action": "clear", "reason": "x" * 501}, "/reason"),
        (RETENTION, {"action": "clear", "reason": "x", "dry_run": "yes"}, "/dry_run"),
        (RETENTION, {"action": "clear", "reason": "x", "to_seq": 3}, "/to_seq"),
        (ERASURES, {"reason": "x"}, ""),
        (ERASURES, {"reason": "x", "actor": {"id": "a"}, "events": ["b"]}, ""),
        (ERASURES, {"reason": "x", "actor": {"id": ""}}, "/actor/id"),
        (ERASURES, {"reason": "x", "actor": {"id": "u12"}, "groups": ["everything"]}, "/groups/0"),
        (ERASURES, {"reason": "x", "target": "user:u12"}, "/target"),
        (ERASURES, {"reason": "x", "events": []}, "/events"),
        (ERASURES, {"reason": "x", "events": ["e"] * 1001}, "/events"),
        (ERASURES, {"reason": "x", "actor": {"id": "a\0b"}}, "/actor/id"),
    ],
)
async def test_a_request_that_breaks_its_schema_is_refused_with_the_place(
    api: Api, path: str, body: Any, pointer: str
) -> None:
    response = await api.client.post(path, json=body)
    assert response.status_code == 422, response.text
    assert pointer in [error["pointer"] for error in response.json()["errors"]]
    assert (await get(api, path))["requests"] == []


async def test_asking_takes_the_scope_admin_and_shows_no_other_tenant_s(api: Api, database: TestDatabase) -> None:
    asked = await ask(api, RETENTION, action="clear")
    reader = await add_key(database, await default_log_id(database), ["read", "ingest", "export", "verify"])
    async with open_api(database, key=reader) as limited:
        for path in (RETENTION, ERASURES):
            assert (await limited.client.post(path, json={"reason": "x", "action": "clear"})).status_code == 403
            assert (await limited.client.get(path)).status_code == 403
    other = await add_key(database, await add_tenant(database, "other"))
    async with open_api(database, key=other) as stranger:
        assert (await get(stranger, RETENTION))["requests"] == []
        assert (await stranger.client.get(f"{RETENTION}/{asked['id']}")).status_code == 404
    assert (await api.client.get(f"{ERASURES}/{asked['id']}")).status_code == 404  # a request of the other kind


async def test_a_reason_that_holds_a_secret_is_redacted(api: Api) -> None:
    token = "gh" + "p_" + "a1B2" * 9
    asked = await ask(api, RETENTION, action="clear", reason=f"because of {token}")
    assert token not in json.dumps(asked)


async def test_the_state_of_a_target_says_that_events_were_dropped(
    api: Api, database: TestDatabase, log_id: int
) -> None:
    """What retention took may have been this target's: nothing after it is known for sure."""
    row = {"type": "vm", "id": "v1"}
    await api.accept(
        {"id": "made", "action": "vm.created", "verb": "CREATE", "target": row, "after": {"ram": 1}},
        {"id": "grown", "action": "vm.updated", "target": row, "before": {"ram": 1}, "after": {"ram": 2}},
    )
    before = (await get(api, "/v1/targets/vm/v1/history"))["state"]
    assert (before["complete"], before["fields"]["/ram"]["value"]) == (True, 2)
    await ask(api, ERASURES, events=["grown"], groups=["changes"])
    await keep(database)
    erased = (await get(api, "/v1/targets/vm/v1/history"))["state"]
    assert erased["complete"] is False
    assert erased["fields"]["/ram"].get("erased") is True
    async with retention_pools(database) as pools:
        await retention.set_hold(pools.writes, log_id, control.hold_range(AUTHOR.act(), "h", (3, 4)))
    await ask(api, RETENTION, action="clear")
    await keep(database)
    dropped = (await get(api, "/v1/targets/vm/v1/history"))["state"]
    assert (dropped["complete"], dropped["fields"]["/ram"]["value"]) == (False, 1)


async def test_the_keeper_waits_while_another_run_is_at_work(api: Api, database: TestDatabase, log_id: int) -> None:
    asked = await ask(api, RETENTION, action="clear")
    async with retention_pools(database) as pools, forgetting.turn(pools.writes, log_id):
        await keep(database)
        assert (await get(api, f"{RETENTION}/{asked['id']}"))["status"] == "pending"
    await keep(database)
    assert (await get(api, f"{RETENTION}/{asked['id']}"))["status"] == "done"


async def test_the_keeper_stops_when_told(database: TestDatabase) -> None:
    stopped = asyncio.Event()
    settings = Settings(retention_database_url=SecretStr(database.owner_url))
    running = asyncio.create_task(keeper.run(settings, stopped))
    stopped.set()
    await asyncio.wait_for(running, 20)
