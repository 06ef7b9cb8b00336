"""After any forgetting, readers find exactly what a naive model says is left: lists, searches, counts, facets, timeline, exports.

Segments of eight entries, so that a log of a hundred has every shape that one of millions has. FORGET_SEEDS says how many random stories.
"""

import json
import os
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from audit_service import retention
from audit_service.core import control, terms
from audit_service.core.entry import GROUPS
from audit_service.core.forgetting import Events, Person, Subject, Target
from audit_service.indexer import index_all
from audit_service.store import counts, find, forgetting, segments
from audit_service.store import retention as holds
from audit_service.store.engine import Database
from tests.api.test_counts import naive_facets
from tests.support.api import Api
from tests.support.apps import open_api
from tests.support.forgetting import (
    AUTHOR,
    REFERENCE,
    control_events,
    forget_groups,
    groups_concerned,
    retention_pools,
)
from tests.support.intact import assert_log_intact
from tests.support.oracle import ASKED, SORTS, Asked, Event, expected, fill, make_events, matches
from tests.support.postgres import TestDatabase, default_log_id

SEEDS = int(os.environ.get("FORGET_SEEDS", "4"))
SEGMENT = 8
STEPS = 9


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Every branch with few events."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terms, "SEGMENT_EVENTS", SEGMENT)
        patch.setattr(find, "WALK_ENTRIES", 3)
        patch.setattr(find, "_NAMED_LIMIT", 3)
        patch.setattr(find, "_LISTED_LIMIT", 3)
        patch.setattr(find, "_BATCHES", (1, 2, 4))
        patch.setattr(counts, "_SEGMENTS_AT_ONCE", 3)
        patch.setattr(counts, "_LOOKED_AT_LIMIT", 10)
        patch.setattr(segments, "_SLICE_ENTRIES", 3)
        patch.setattr(forgetting, "_SLICE_ENTRIES", 3)
        patch.setattr(forgetting, "_SEGMENTS_AT_ONCE", 2)
        patch.setattr(control, "ITEMS_LIMIT", 7)
        yield


class Story:
    """A log, what was forgotten of it, and what a naive reader has left."""

    def __init__(self, seed: int, api: Api, database: TestDatabase, log_id: int, pools: Database) -> None:
        self.seed = seed
        self.chance = random.Random(seed)  # noqa: S311 - the same each run
        self.api, self.database, self.log_id, self.pools = api, database, log_id, pools
        self.events: list[Event] = []
        self.held: dict[str, tuple[int, int] | tuple[str, str]] = {}
        self.posted = 0

    async def post(self, count: int) -> None:
        """More events."""
        fresh = make_events(self.seed * 100 + self.posted, count, f"e{self.posted}-")
        self.posted += count
        self.events += await fill(self.api, fresh)

    def is_held(self, event: Event) -> bool:
        """Whether any hold covers it."""
        target = event["target"] or {}
        return any(
            hold[0] <= event["seq"] < hold[1]
            if isinstance(hold[0], int)
            else (target.get("type"), target.get("id")) == hold
            for hold in self.held.values()
        )

    async def step(self) -> None:
        """Something that may happen to a log."""
        await self.chance.choice(
            [self.clear, self.age, self.erase, self.erase, self.erase, self.hold, self.hold, self.lift, self.grow]
        )()

    async def grow(self) -> None:
        await self.post(self.chance.randrange(1, 20))
        await index_all(self.api.service.database)

    async def clear(self) -> None:
        to_seq = self.chance.randrange(self.posted)
        going = [event for event in self.events if event["seq"] < to_seq]
        done = await retention.clear(self.pools, self.log_id, AUTHOR, to_seq=to_seq)
        self.drop(going, done)

    async def age(self) -> None:
        """By category, with a clock that is days ahead."""
        if not self.events:
            return
        now = datetime.fromisoformat(self.chance.choice(self.events)["recorded_at"])
        days = {
            category: self.chance.randrange(1, 4) for category in self.chance.sample(["server", "x", "user", ""], 2)
        }
        with pytest.MonkeyPatch.context() as patch:

            async def clock(*_: Any) -> datetime:
                return now + timedelta(days=2)

            patch.setattr(forgetting, "fetch_clock", clock)
            done = await retention.apply_policies(self.pools, self.log_id, AUTHOR, days)
        for category, result in done.items():
            before = now + timedelta(days=2) - timedelta(days=days[category])
            self.drop(
                [
                    event
                    for event in self.events
                    if datetime.fromisoformat(event["recorded_at"]) < before
                    and (event["category"] == category if category else event["category"] not in days)
                ],
                result,
            )

    def drop(self, going: list[Event], done: retention.Forgotten) -> None:
        """What a drop does to the model, and what it says it has done."""
        gone = {event["seq"] for event in going if not self.is_held(event)}
        self.events = [event for event in self.events if event["seq"] not in gone]
        assert (done.entries, done.held, done.damaged) == (len(gone), len(going) - len(gone), 0)

    async def erase(self) -> None:
        subjects: list[Subject] = [
            Person(self.chance.choice(["u1", "u10", "12", "u1*", "u77", "nobody"])),
            Person("u1", self.chance.choice(["user", "api"])),
            Target(*self.chance.choice([("server", "s1"), ("vm", "s1"), ("server", "é"), ("vm", "日本語サーバー")])),
            Events(frozenset(event["id"] for event in self.chance.sample(self.events, min(3, len(self.events))))),
        ]
        subject = self.chance.choice(subjects)
        groups = self.chance.choice([None, None, frozenset(self.chance.sample(GROUPS, 3))])
        dry = await self._erase(subject, groups, dry_run=True)
        done = await self._erase(subject, groups)
        taken = {event["seq"]: groups_concerned(event, subject, groups) for event in self.events}
        held = {event["seq"] for event in self.events if taken[event["seq"]] and self.is_held(event)}
        going = {seq: some for seq, some in taken.items() if some and seq not in held}
        wanted = (len(going), sum(map(len, going.values())), 0)
        assert (done.entries, done.values, done.damaged) == wanted, (subject, groups)
        assert (dry.entries, dry.values, dry.held, dry.controls) == (done.entries, done.values, done.held, [])
        # The entries that set a hold on a target are about it, too.
        assert done.held >= len(held)
        self.events = [forget_groups(event, going.get(event["seq"], ())) for event in self.events]
        again = await self._erase(subject, groups)
        assert (again.entries, again.held, again.controls) == (0, done.held, [])

    async def _erase(
        self, subject: Subject, groups: frozenset[str] | None, *, dry_run: bool = False
    ) -> retention.Forgotten:
        return await retention.erase(
            self.pools, self.log_id, AUTHOR, subject, reference=REFERENCE, groups=groups, dry_run=dry_run
        )

    async def hold(self) -> None:
        hold_id = f"hold-{len(self.held)}-{self.chance.random()}"
        if self.chance.random() < 0.5:
            start = self.chance.randrange(self.posted)
            self.held[hold_id] = (start, start + self.chance.randrange(1, 15))
            entry = control.hold_range(AUTHOR.act(), hold_id, self.held[hold_id])  # type: ignore[arg-type]
        else:
            kind, identifier = self.chance.choice([("server", "s1"), ("vm", "s1"), ("server", "é")])
            self.held[hold_id] = (kind, identifier)
            entry = control.hold_target(AUTHOR.act(), hold_id, kind, identifier)
        await holds.set_hold(self.pools.writes, self.log_id, entry)

    async def lift(self) -> None:
        if self.held:
            hold_id = self.chance.choice(sorted(self.held))
            del self.held[hold_id]
            await holds.lift_hold(self.pools.writes, self.log_id, control.lift_hold(AUTHOR.act(), hold_id))

    async def remember_notes(self) -> None:
        """What the service noted of the exports and verifications of this test are events like any other."""
        known = max((event["seq"] for event in self.events), default=-1)
        for noted in reversed(await self.api.notes()):
            if noted["seq"] > known:
                shown = await self.api.event(noted["id"])
                context = dict.fromkeys(("ip", "session_id", "request_id")) | (shown["context"] or {})
                self.events.append(shown | {"context": context})
        self.posted = max([self.posted, *(event["seq"] + 1 for event in self.events)])

    async def left(self) -> list[Event]:
        """Everything a reader must find, in the order of seq."""
        controls = await control_events(self.database, self.log_id)
        return sorted([*self.events, *controls], key=lambda event: int(event["seq"]))

    def questions(self, count: int) -> Iterator[Asked]:
        """Some filters, alone and two together."""
        for _ in range(count):
            names = self.chance.sample(sorted(ASKED), self.chance.choice([1, 1, 2]))
            yield [
                (name + self.chance.choice(["", "", ".not"]), self.chance.choice([value for value in ASKED[name] if value]))
                for name in names
            ]  # fmt: skip

    async def assert_found(self) -> None:
        """Lists with counts, facets and timeline are those of the model; and an export of everything."""
        events = await self.left()
        assert await facets(self.api, []) == naive_facets(events)
        for asked in ([], *self.questions(12)):
            sort, limit = self.chance.choice(SORTS), self.chance.choice([1, 5, 500])
            wanted = expected(events, asked, sort)
            page = await get(self.api, "events", [*asked, ("sort", sort), ("limit", str(limit)), ("count", "capped")])
            assert [event["seq"] for event in page["events"]] == wanted[:limit], asked
            assert (page["count"], page["next_cursor"] is None) == (len(wanted), len(wanted) <= limit), asked
            fitting = [event for event in events if matches(event, asked)]
            assert await facets(self.api, asked) == naive_facets(fitting), asked
            timeline = await get(self.api, "timeline", [*asked, ("interval", "month")])
            assert sum(bucket["count"] for bucket in timeline["timeline"]) == len(fitting), asked
        assert await exported(self.api) == [event["seq"] for event in events]


async def get(api: Api, path: str, asked: Asked) -> dict[str, Any]:
    """An answer."""
    response = await api.client.get(f"/v1/{path}", params=[*asked])
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def facets(api: Api, asked: Asked) -> dict[str, Any]:
    """Facets."""
    return await get(api, "facets", asked)


async def exported(api: Api) -> list[int]:
    """The seqs of an export of everything."""
    response = await api.client.get("/v1/export", params={"format": "ndjson"})
    *events, trailer = [json.loads(line) for line in response.text.splitlines()]
    assert trailer["count"] == len(events)
    return [event["seq"] for event in events]


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_readers_find_what_a_naive_model_says_is_left(seed: int, database: TestDatabase) -> None:
    log_id = await default_log_id(database)
    async with open_api(database) as api, retention_pools(database) as pools:
        story = Story(seed, api, database, log_id, pools)
        await story.post(60)
        await index_all(api.service.database)
        for _ in range(STEPS):
            await story.step()
            await story.assert_found()
            report = await api.verify()
            assert (report["status"], report["breaks"]) == ("ok", [])
            await story.remember_notes()
    connection = await database.owner()
    size = await connection.fetchval("SELECT size FROM audit.log WHERE log_id = $1", log_id)
    await assert_log_intact(connection, log_id, size, forgotten=range(size))
    await connection.close()


async def test_control_postings_that_are_left_are_noticed(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built of the entries as they were, the index counts what is gone."""
    build = segments.build_segment
    monkeypatch.setattr(forgetting, "build_segment", lambda reads, log_id, number, _left: build(reads, log_id, number))
    log_id = await default_log_id(database)
    async with open_api(database) as api, retention_pools(database) as pools:
        story = Story(0, api, database, log_id, pools)
        await story.post(60)
        await index_all(api.service.database)
        await retention.clear(pools, log_id, AUTHOR, to_seq=30)
        story.events = [event for event in story.events if event["seq"] >= 30]
        with pytest.raises(AssertionError):
            await story.assert_found()
