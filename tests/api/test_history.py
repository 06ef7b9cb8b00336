"""History and revert over real HTTP: two tenants with the same targets, ids made to mislead, and rows that were really kept."""

import itertools
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit_service.api import schemas
from audit_service.api.routes import adapters, chain, events, history, keys, operations
from audit_service.store.history import FIRST_SLICE_ENTRIES, SLICE_ENTRIES
from tests.support.apps import add_key, add_tenant
from tests.support.json_patch import PatchError, apply_patch, equal, tokens
from tests.support.postgres import TestDatabase
from tests.support.serving import served

START = datetime(2026, 3, 1, tzinfo=UTC)
ANA = {"type": "user", "id": "u1", "name": "Ana", "email": "ana@example.com", "role": "Admin"}
BO = {"type": "user", "id": "u2", "name": "Bo"}
Answer = dict[str, Any]
_numbers = itertools.count()


def moment(minute: int) -> str:
    """A time, minutes after the start."""
    return (START + timedelta(minutes=minute)).isoformat()


def new_id() -> str:
    """A target id nobody has used."""
    return f"t{next(_numbers)}"


@dataclass
class Panel:
    """A panel of one tenant."""

    client: httpx.AsyncClient

    async def post(self, *events: Answer) -> list[Answer]:
        """Store the events in this order; their receipts."""
        response = await self.client.post("/v1/events", json=list(events))
        assert response.status_code == 201, response.text
        return [result["receipt"] for result in response.json()["results"]]

    async def history(self, kind: str, identifier: str, **parameters: Any) -> Answer:
        """A page of a target's history; it is what the schema says."""
        path = f"/v1/targets/{quote(kind, safe='')}/{quote(identifier, safe='')}/history"
        response = await self.client.get(path, params={k.replace("__", "."): v for k, v in parameters.items()})
        assert response.status_code == 200, response.text
        schemas.HistoryPage.model_validate(response.json())
        page: Answer = response.json()
        return page

    async def state(self, identifier: str, at: str | None = None, *, kind: str = "license") -> Answer:
        """A target's state."""
        page = await self.history(kind, identifier, limit=1, **({} if at is None else {"at": at}))
        state: Answer = page["state"]
        return state

    async def revert(self, event_id: str) -> Answer:
        """The patch that undoes an event; it is what the schema says."""
        response = await self.client.get(f"/v1/events/{quote(event_id, safe='')}/revert")
        assert response.status_code == 200, response.text
        schemas.RevertView.model_validate(response.json())
        answer: Answer = response.json()
        return answer


@dataclass
class Panels:
    """Two tenants' panels on one service, and what a superuser can do to its database."""

    own: Panel
    other: Panel
    database: TestDatabase

    async def erase(self, columns: str, seq: int) -> None:
        """Null columns of an entry of both tenants, as the eraser may."""
        connection = await self.database.owner()
        try:
            await connection.execute("SET ROLE audit_eraser")
            assignments = ", ".join(f"{name} = NULL" for name in columns.split())
            assert await connection.execute(f"UPDATE audit.entry SET {assignments} WHERE seq = {seq}") != "UPDATE 0"
        finally:
            await connection.close()


@pytest.fixture(scope="module")
async def panels(module_database: TestDatabase) -> AsyncIterator[Panels]:
    """The service behind its own HTTP server."""
    key = await add_key(module_database, await add_tenant(module_database, "other"))
    async with served(module_database) as service:
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{service.port}", headers=headers, trust_env=False
        ) as other:
            yield Panels(Panel(service.api.client), Panel(other), module_database)


def change(identifier: str, minute: int, before: Any, after: Any, **members: Any) -> Answer:
    """An event of a licence: created, updated or deleted, by the rows."""
    word = "created" if before is None else "deleted" if after is None else "updated"
    shown = {
        "action": f"license.{word}", "occurred_at": moment(minute), "target": {"type": "license", "id": identifier},
        "before": before, "after": after,
    }  # fmt: skip
    return {**shown, **members}


def valued(fields: Answer) -> Answer:
    """Path → value."""
    return {path: shown["value"] for path, shown in fields.items() if "value" in shown}


def resolve(row: Any, pointer: str) -> Any:
    for name in tokens(pointer):
        row = row[int(name) if isinstance(row, list) else name]
    return row


# ---- the state


async def test_a_license_from_its_creation_to_the_recovery_of_its_key(panels: Panels) -> None:
    """What was in the row when it was deleted, which is why licence panels keep a log."""
    one = new_id()
    rows: list[Any] = [{"key": "AAAA-1111", "seats": {"max": 3, "used": 0}, "password": "x"}]
    rows.append({**rows[0], "seats": {"max": 5, "used": 0}})
    await panels.own.post(
        change(one, 0, None, rows[0], actor=ANA, id=f"{one}-made"),
        change(one, 10, rows[0], rows[1], actor=BO, on_behalf_of=ANA),
        change(one, 20, rows[1], None, actor=BO, id=f"{one}-gone"),
    )
    state = await panels.own.state(one, moment(15))
    assert (state["exists"], state["complete"], state["deleted"], state["drift"]) == (True, True, None, [])
    assert valued(state["fields"]) == {"/key": "AAAA-1111", "/seats/max": 5, "/seats/used": 0}
    assert (state["fields"]["/password"]["redacted"], "value" in state["fields"]["/password"]) == (True, False)
    by = state["fields"]["/seats/max"]["set_by"]
    assert (by["actor"]["name"], by["on_behalf_of"]["name"], by["action"]) == ("Bo", "Ana", "license.updated")
    assert state["fields"]["/key"]["set_by"]["event_id"] == f"{one}-made"
    assert datetime.fromisoformat(state["at"]) == datetime.fromisoformat(moment(15))

    gone = await panels.own.state(one)
    assert (gone["exists"], gone["complete"], gone["fields"], gone["events_read"]) == (False, True, {}, 1)
    assert valued(gone["deleted"]["fields"]) == {"/key": "AAAA-1111", "/seats": {"max": 5, "used": 0}}
    assert (gone["deleted"]["by"]["event_id"], gone["deleted"]["complete"]) == (f"{one}-gone", True)

    early = await panels.own.state(one, moment(-1))
    assert (early["exists"], early["complete"], early["fields"], early["events_read"]) == (None, False, {}, 0)


async def test_at_includes_the_very_moment(panels: Panels) -> None:
    one = new_id()
    await panels.own.post(change(one, 0, None, {"n": 1}), change(one, 1, {"n": 1}, {"n": 2}))
    assert valued((await panels.own.state(one, moment(1)))["fields"]) == {"/n": 2}
    before = (START + timedelta(minutes=1, microseconds=-1)).isoformat()
    assert valued((await panels.own.state(one, before))["fields"]) == {"/n": 1}
    assert valued((await panels.own.state(one, "9999-12-31T23:59:59.999999Z"))["fields"]) == {"/n": 2}


async def test_a_change_of_a_clock_that_runs_ahead_shows_at_once(panels: Panels) -> None:
    """Without `at`, the state is after the newest event, not before those of a panel whose clock is a little fast."""
    one = new_id()
    ahead = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    await panels.own.post(change(one, 0, None, {"n": 1}), change(one, 1, {"n": 1}, {"n": 2}, occurred_at=ahead))
    state = await panels.own.state(one)
    assert (valued(state["fields"]), datetime.fromisoformat(state["at"])) == ({"/n": 2}, datetime.fromisoformat(ahead))


async def test_an_event_that_arrives_late_is_folded_in_its_place(panels: Panels) -> None:
    one = new_id()
    await panels.own.post(
        change(one, 9, {"n": 2}, {"n": 3}, actor=BO),
        change(one, 5, {"n": 1}, {"n": 2}, actor=ANA),
        change(one, 0, None, {"n": 1}),
    )
    state = await panels.own.state(one)
    assert (valued(state["fields"]), state["drift"], state["complete"]) == ({"/n": 3}, [], True)
    assert state["fields"]["/n"]["set_by"]["actor"]["name"] == "Bo"


async def test_a_patch_alone_leaves_the_rest_unknown(panels: Panels) -> None:
    one = new_id()
    await panels.own.post(change(one, 0, {"n": 1, "other": 2}, {"n": None}, partial="after"))
    state = await panels.own.state(one)
    assert (state["exists"], state["complete"], valued(state["fields"])) == (True, False, {"/n": None})


async def test_drift_shows_both_values_and_who_noticed(panels: Panels) -> None:
    one = new_id()
    await panels.own.post(
        change(one, 0, None, {"n": 1}, actor=ANA), change(one, 5, {"n": 7}, {"n": 8}, actor=BO, id=f"{one}-saw")
    )
    (drift,) = (await panels.own.state(one))["drift"]
    assert (drift["path"], drift["logged"]["value"], drift["found"]["value"]) == ("/n", 1, 7)
    assert drift["logged"]["set_by"]["actor"]["name"] == "Ana"
    assert drift["found"]["set_by"]["event_id"] == f"{one}-saw"


async def test_ignored_fields_prove_no_drift(panels: Panels, module_database: TestDatabase) -> None:
    """They ride along in values that are reported whole, and nobody logged their changes."""
    one = new_id()
    made = {"meta": {"a": 1, "synced": 1}}
    async with served(module_database, ignored_fields="synced") as service:
        panel = Panel(service.api.client)
        await panel.post(change(one, 0, None, made), change(one, 1, {"meta": {"a": 1, "synced": 2}}, {}))
        assert (await panel.state(one))["drift"] == []
    assert [drift["path"] for drift in (await panels.own.state(one))["drift"]] == ["/meta"]


rows = st.dictionaries(
    st.sampled_from(["a", "b", "a/b", "~", "é"]),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.sampled_from(["x", ""])),
        lambda inner: (
            st.lists(inner, min_size=1, max_size=2) | st.dictionaries(st.sampled_from("kl"), inner, max_size=2)
        ),
        max_leaves=5,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.none(), rows, rows), min_size=1, max_size=6), st.randoms(use_true_random=False))
async def test_the_state_at_each_time_is_the_row_that_was_kept(
    panels: Panels, lived: list[Any], chance: random.Random
) -> None:
    """Whatever the order of arrival; and undoing each event on the row it left gives the row it met."""
    one = new_id()
    before = None
    events, kept = [], []
    for minute, row in enumerate(lived):
        if before != row and (before is None or row is None or not equal(before, row)):
            events.append(change(one, minute, before, row, id=f"{one}/{minute}"))
            kept.append((minute, before, row))
            before = row
    chance.shuffle(events)
    if events:
        await panels.own.post(*events)
    for minute, older, row in kept:
        state = await panels.own.state(one, moment(minute))
        assert (state["exists"], state["complete"], state["drift"]) == (row is not None, True, [])
        fields = state["fields"] if row is not None else state["deleted"]["fields"]
        for pointer, value in valued(fields).items():
            assert equal(value, resolve(row if row is not None else older, pointer)), pointer
        patch = (await panels.own.revert(f"{one}/{minute}"))["patch"]
        assert equal(older if older is not None else {}, apply_patch(row if row is not None else {}, patch))


async def test_a_long_history_without_a_beginning_is_read_in_slices_to_its_end(panels: Panels) -> None:
    """More events than two slices hold; every field was set once, so all of them have to be read."""
    one = new_id()
    count = FIRST_SLICE_ENTRIES + SLICE_ENTRIES + 1
    events = [change(one, n, {"f": 0}, {f"f{n}": n}, partial="both") for n in range(count)]
    await panels.own.post(*events)
    state = await panels.own.state(one)
    assert (state["events_read"], state["complete"], state["capped"]) == (count, False, False)
    assert valued(state["fields"]) == {f"/f{n}": n for n in range(count)}


async def test_a_created_row_ends_the_reading(panels: Panels) -> None:
    one = new_id()
    await panels.own.post(
        *(change(one, n, {"n": n}, {"n": n + 1}) for n in range(200)), change(one, 300, None, {"n": 0})
    )
    state = await panels.own.state(one)
    assert (state["events_read"], state["complete"], valued(state["fields"])) == (1, True, {"/n": 0})


async def test_a_history_over_the_limit_says_that_it_was_not_read_whole(module_database: TestDatabase) -> None:
    one = new_id()
    async with served(module_database, history_limit_events=10) as service:
        panel = Panel(service.api.client)
        await panel.post(*(change(one, n, None if n == 0 else {"n": n}, {"n": n + 1}) for n in range(12)))
        state = await panel.state(one)
    assert (state["events_read"], state["capped"], state["complete"]) == (10, True, False)
    assert valued(state["fields"]) == {"/n": 12}


# ---- what is gone from the log


async def test_erased_changes_leave_the_writer_and_their_seq(panels: Panels) -> None:
    one = new_id()
    receipts = await panels.own.post(
        change(one, 0, None, {"n": 1, "m": 1}), change(one, 1, {"n": 1}, {"n": 2}, actor=ANA, id=f"{one}-erased")
    )
    await panels.erase("d_changes d_actor", receipts[1]["seq"])
    state = await panels.own.state(one)
    assert (state["complete"], state["incomplete"]) == (False, [receipts[1]["seq"]])
    assert (state["fields"]["/n"]["erased"], state["fields"]["/m"]["value"]) == (True, 1)
    assert state["fields"]["/n"]["set_by"]["actor"]["name"] is None
    assert (await panels.own.revert(f"{one}-erased"))["skipped"] == [{"path": "", "reason": "erased"}]


async def test_after_retention_took_bodies_a_state_is_not_called_complete(panels: Panels) -> None:
    """What was dropped names no target any more, so it may have been a change of any."""
    one = new_id()
    receipts = await panels.own.post(
        change("dropped", 0, None, {"n": 1}),
        change(one, 0, None, {"n": 1}),
        change("dropped", 1, {"n": 1}, {"n": 2}, id="drop"),
    )
    assert (await panels.own.state(one))["complete"] is True
    everything = "body occurred_at id action verb category target_type target_id target_name d_target d_changes"
    await panels.erase(everything, receipts[0]["seq"])
    assert (await panels.own.state(one))["complete"] is True  # dropped before it was made
    await panels.erase(everything, receipts[2]["seq"])
    state = await panels.own.state(one)
    assert (state["complete"], valued(state["fields"])) == (False, {"/n": 1})
    gone = new_id()
    await panels.own.post(change(gone, 0, {"n": 1}, None))
    assert (await panels.own.state(gone))["complete"] is True
    response = await panels.own.client.get("/v1/events/drop/revert")
    assert response.status_code == 410


# ---- the list


async def test_the_list_has_the_filters_and_the_state_does_not(panels: Panels) -> None:
    one = new_id()
    await panels.own.post(
        change(one, 0, None, {"n": 1}, actor=ANA), change(one, 1, {"n": 1}, {"n": 2}, actor=BO),
        change(one, 2, {"n": 2}, {"n": 3}, actor=ANA),
    )  # fmt: skip
    page = await panels.own.history("license", one, actor="ana", verb__not="CREATE", count="capped")
    assert [shown["changes"][0]["new"] for shown in page["events"]] == [3]
    assert (page["count"], valued(page["state"]["fields"])) == (1, {"/n": 3})
    page = await panels.own.history("license", one, sort="seq")
    assert [shown["changes"][0]["new"] for shown in page["events"]] == [1, 2, 3]
    assert (
        page["events"][0]
        == (await panels.own.client.get("/v1/events", params={"target_id": one, "sort": "seq"})).json()["events"][0]
    )


async def test_pages_hold_each_event_once_and_the_state_stands_on_the_first(panels: Panels) -> None:
    one = f"a/b%2F {new_id()}"
    await panels.own.post(*(change(one, n // 3, {"n": n}, {"n": n + 1}) for n in range(20)))
    found: list[int] = []
    url = f"/v1/targets/license/{quote(one, safe='')}/history?limit=7&at={quote(moment(3))}"
    states = []
    while url:
        response = await panels.own.client.get(url)
        assert response.status_code == 200, response.text
        found += [shown["changes"][0]["new"] for shown in response.json()["events"]]
        states.append(response.json()["state"])
        url = response.links.get("next", {}).get("url", "")
        assert not url or urlsplit(url).path.endswith(f"/{quote(one, safe='')}/history")
    assert found == list(range(20, 0, -1))
    assert [state is None for state in states] == [False, True, True]
    assert valued(states[0]["fields"]) == {"/n": 12}


async def test_a_cursor_is_good_for_its_target_only(panels: Panels) -> None:
    one, two = new_id(), new_id()
    for identifier in (one, two):
        await panels.own.post(*(change(identifier, n, {"n": n}, {"n": n + 1}) for n in range(3)))
    cursor = (await panels.own.history("license", one, limit=1))["next_cursor"]
    assert (await panels.own.history("license", one, limit=1, cursor=cursor))["events"][0]["changes"][0]["new"] == 2
    for panel, path in (
        (panels.own, f"/v1/targets/license/{two}/history"),
        (panels.own, f"/v1/targets/licens/{one}/history"),
        (panels.own, "/v1/events"),
        (panels.other, f"/v1/targets/license/{one}/history"),
    ):
        response = await panel.client.get(path, params={"limit": 1, "cursor": cursor})
        assert (response.status_code, response.json()["errors"][0]["parameter"]) == (400, "cursor"), path


@pytest.mark.parametrize(
    ("name", "value"),
    [("target_id", "x"), ("target_type", "x"), ("target_id.not", "x"), ("target_type.not", "x"), ("at", "yesterday"),
     ("at", "2026-03-01"), ("at", ""), ("At", moment(0)), ("limit", "0"), ("cursor", "x"), ("at", "2026-13-01T00:00:00Z")],
)  # fmt: skip
async def test_a_bad_parameter_is_refused_by_name(panels: Panels, name: str, value: str) -> None:
    response = await panels.own.client.get("/v1/targets/license/x/history", params={name: value})
    assert (response.status_code, response.json()["errors"][0]["parameter"]) == (400, name)


async def test_at_may_stand_once(panels: Panels) -> None:
    response = await panels.own.client.get("/v1/targets/license/x/history", params={"at": [moment(0), moment(1)]})
    assert response.status_code == 400


# ---- who is asking, and for what


async def test_another_tenant_s_events_of_the_same_target_never_appear(panels: Panels) -> None:
    one = new_id()
    await panels.own.post(change(one, 0, None, {"n": "ours"}), change(one, 9, {"n": "ours"}, None, id=f"{one}-x"))
    nothing = await panels.other.history("license", one)
    assert (nothing["events"], nothing["state"]["exists"], nothing["state"]["deleted"]) == ([], None, None)
    await panels.other.post(change(one, 1, None, {"n": "theirs"}))
    theirs = await panels.other.history("license", one)
    assert [shown["changes"][0]["new"] for shown in theirs["events"]] == ["theirs"]
    assert (theirs["state"]["exists"], valued(theirs["state"]["fields"])) == (True, {"/n": "theirs"})
    assert "theirs" not in json.dumps(await panels.own.history("license", one))
    assert (await panels.other.client.get(f"/v1/events/{one}-x/revert")).status_code == 404


async def test_a_target_nobody_heard_of_has_an_empty_history(panels: Panels) -> None:
    page = await panels.own.history("license", "never seen")
    assert (page["events"], page["next_cursor"]) == ([], None)
    assert (page["state"]["exists"], page["state"]["complete"], page["state"]["fields"]) == (None, False, {})


NAMES = ["a/b", "a%2Fb", "/", "//", "a/history", "history", "/history", "..%2f", "../x", "é", "e\u0301", "a?b=c", "a#b", "a b+c",
         "%", "%zz", "'; DROP TABLE--", "x" * 255, "none", "*", "a*", "\u202eabc", "🙂"]  # fmt: skip


@pytest.mark.parametrize("kind", ["license", "dcim/device", "App\\Models\\License", "a/history"])
async def test_ids_with_slashes_and_worse_find_their_own_events_only(panels: Panels, kind: str) -> None:
    for number, identifier in enumerate(NAMES):
        target = {"type": kind, "id": identifier}
        await panels.own.post(change("", number, None, {"n": identifier}, target=target))
    for identifier in NAMES:
        page = await panels.own.history(kind, identifier)
        assert [shown["target"]["id"] for shown in page["events"]] == [identifier]
        assert valued(page["state"]["fields"]) == {"/n": identifier}


async def test_slashes_of_an_id_may_stand_as_they_are(panels: Panels) -> None:
    """A type ends at the first slash; what is left but `/history` is the id."""
    await panels.own.post(change("p/q/r", 0, None, {"n": 1}))
    response = await panels.own.client.get("/v1/targets/license/p/q/r/history")
    assert len(response.json()["events"]) == 1
    response = await panels.own.client.get("/v1/targets/license%2Fp/q/r/history")
    assert (response.status_code, response.json()["events"]) == (200, [])


@pytest.mark.parametrize(
    "path",
    ["/v1/targets/license//history", "/v1/targets//x/history", "/v1/targets/license/history", "/v1/targets/license%2Fx/history",
     "/v1/targets/license/x%2Fhistory", "/v1/targets/license/a%00b/history", "/v1/targets/license/" + "x" * 256 + "/history",
     "/v1/targets/" + "x" * 129 + "/x/history", "/v1/targets/license/x/History", "/v1/targets/license/x/history/",
     "/v1/events/never-seen/revert", "/v1/events//revert", "/v1/events/a%00b/revert", "/v1/events/" + "x" * 256 + "/revert"],
)  # fmt: skip
async def test_what_no_event_can_have_is_not_found(panels: Panels, path: str) -> None:
    response = await panels.own.client.get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_no_path_is_matched_in_the_square_of_its_length() -> None:
    """With two parameters that take slashes, one request of 16 KiB took half a second to be told that it is not found."""
    modules = (adapters, chain, events, history, keys, operations)
    paths = [route.path for module in modules for route in module.router.routes if isinstance(route, APIRoute)]
    assert "/v1/targets/{target_type}/{target_id:path}/history" in paths
    assert [path for path in paths if path.count(":path}") > 1] == []


async def test_bytes_that_are_no_text_are_an_id_nobody_has(panels: Panels) -> None:
    response = await panels.own.client.get("/v1/targets/license/%ff%fe/history")
    assert (response.status_code, response.json()["events"]) == (200, [])


# ---- undoing


async def test_undoing_an_update_gives_the_old_row_and_a_row_that_moved_on_refuses(panels: Panels) -> None:
    one = new_id()
    old = {"days": 7, "tags": ["a", "b"], "note": "x", "password": "p1"}
    new = {"days": 14, "tags": ["a", "c"], "cron": "@daily", "password": "p2"}
    (receipt,) = await panels.own.post(change(one, 0, old, new, id=f"{one}-u"))
    answer = await panels.own.revert(f"{one}-u")
    assert (answer["id"], answer["seq"], answer["reverts"]) == (f"{one}-u", receipt["seq"], 4)
    assert answer["inverse_of"]["action"] == "license.updated"
    assert answer["inverse_of"]["target"] == {"type": "license", "id": one, "name": None, "url": None}
    assert answer["skipped"] == [{"path": "/password", "reason": "redacted"}]
    assert answer["unguarded"] == ["/note"]
    assert apply_patch(new, answer["patch"]) == {**old, "password": "p2"}
    with pytest.raises(PatchError) as refused:
        apply_patch({**new, "days": 15}, answer["patch"])
    assert (refused.value.op, refused.value.path) == ("test", "/days")


async def test_undoing_a_deletion_makes_the_row_again(panels: Panels) -> None:
    one = new_id()
    await panels.own.post(change(one, 0, {"key": "AAAA", "seats": 3}, None, id=f"{one}-d"))
    answer = await panels.own.revert(f"{one}-d")
    assert answer["patch"][0] == {"op": "test", "path": "", "value": {}}
    assert apply_patch({}, answer["patch"]) == {"key": "AAAA", "seats": 3}


async def test_an_event_may_be_called_revert(panels: Panels) -> None:
    """`%2F` is part of an id, `/` is not."""
    one = new_id()
    await panels.own.post(
        {"id": f"{one}/revert", "action": "a.b", "changes": [{"path": "/x", "new": 1}]},
        {"id": one, "action": "a.b", "changes": [{"path": "/y", "new": 2}]},
        {"id": f"{one}-revert", "action": "a.b"},
    )
    get = panels.own.client.get
    assert (await get(f"/v1/events/{one}%2Frevert")).json()["action"] == "a.b"
    assert (await get(f"/v1/events/{one}%2Frevert/revert")).json()["patch"][0]["path"] == "/x"
    assert (await get(f"/v1/events/{one}/revert")).json()["patch"][0]["path"] == "/y"
    assert (await get(f"/v1/events/{one}-revert")).json()["id"] == f"{one}-revert"
    response = await get(f"/v1/events/{one}/revert", params={"x": "1"})
    assert (response.status_code, response.json()["errors"][0]["parameter"]) == (400, "x")
