"""The reads around a moment and of ranges of places stay reads of a few index ranges, however many events there are."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest
from sqlalchemy import event

from audit_service.core.sight import EVERYTHING
from audit_service.store.around import list_nearby
from audit_service.store.bursts import list_bursts
from audit_service.store.engine import bound
from audit_service.store.selection import Filter, Selection
from tests.support.api import Api
from tests.support.postgres import TestDatabase, default_log_id

START = datetime(2026, 3, 1, tzinfo=UTC)
COUNT = 12_000
Statement = tuple[str, tuple[Any, ...]]


def make_event(number: int) -> dict[str, Any]:
    """A minute apart; every second one is done to the one node that all servers name."""
    return {
        "action": f"kind{number % 7}.updated",
        "occurred_at": (START + timedelta(minutes=number)).isoformat(),
        "server_id": None if number % 2 else f"s{number % 20}",
        "actor": {"id": f"u{number % 5}"},
        "target": {"type": "node", "id": "n1"} if number % 2 else {"type": "vm", "id": f"v{number % 400}"},
        "related": [] if number % 2 else [{"type": "node", "id": "n1"}],
    }


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


async def explain(connection: asyncpg.Connection, statement: Statement) -> list[dict[str, Any]]:
    """The nodes of a statement's plan, as run by the serving role in the bound transaction."""
    sql, values = statement
    found = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *values)
    return list(nodes(orjson.loads(found)[0]["Plan"]))


@pytest.mark.parametrize("filters", [(), (Filter("actor", ("u1",)),)], ids=["all", "an actor"])
async def test_the_statements_read_index_ranges_and_no_more_than_their_bounds(
    api: Api, database: TestDatabase, filters: tuple[Filter, ...]
) -> None:
    for first in range(0, COUNT, 1000):
        posted = await api.client.post("/v1/events", json=[make_event(n) for n in range(first, first + 1000)])
        assert posted.status_code == 201
    owner = await database.owner()
    await owner.execute("ANALYZE audit.entry")
    await owner.close()
    log_id = await default_log_id(database)
    statements: list[Statement] = []
    pools = database.open()

    def note(_connection: Any, _cursor: Any, sql: str, values: tuple[Any, ...], *_: Any) -> None:
        statements.append((sql, values))

    until = START + timedelta(minutes=COUNT // 2)
    since = until - timedelta(hours=24)
    event.listen(pools.reads.sync_engine, "before_cursor_execute", note)
    async with bound(pools.reads, log_id, EVERYTHING) as connection:
        nearby = await list_nearby(
            connection, log_id, Selection(filters, "s2", sight=EVERYTHING), since=since, until=until
        )
        range_of_places = Selection(filters, since=since, since_seq=3, until=until, until_seq=9, sight=EVERYTHING)
        page = await list_bursts(connection, log_id, range_of_places, sort="-occurred_at", after=None, limit=50)
    assert (len(page.rows), bool(nearby.candidates), nearby.capped) == (50, True, True)
    assert len(statements) >= 6
    serving = await database.serving()
    await serving.execute(f"BEGIN READ ONLY; SET LOCAL audit.log_id = '{log_id:d}'")
    for statement in statements:
        for node in await explain(serving, statement):
            assert node["Node Type"] != "Seq Scan", statement[0]
            removed = node.get("Rows Removed by Filter", 0) * node["Actual Loops"]
            assert removed + node["Actual Rows"] * node["Actual Loops"] <= 2500, (node, statement[0])
    await serving.close()
    await pools.dispose()
    await api.assert_intact(COUNT)
