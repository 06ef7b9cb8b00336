"""Random questions of random readers over HTTP: no foreign row, count or facet, and nothing less than what they may see.

The readers' limits are drawn by chance and given out by the service itself, as keys and viewer tokens. ACCESS_EXAMPLES says how many
questions; `make soak` asks ten thousand. The controls drop the walls of decision 0018, one and both.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from sqlalchemy import event, true
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter
from sqlalchemy.sql.visitors import replacement_traverse

from audit_service.api import listing
from audit_service.core.sight import EVERYTHING, Sight
from audit_service.store import around, engine, find, query, selection
from audit_service.store.limits import binding
from tests.support.access_oracle import (
    OracleReader,
    Question,
    Yard,
    check,
    listed,
    open_yard,
    random_questions,
    some_questions,
)
from tests.support.postgres import Server

EXAMPLES = int(os.environ.get("ACCESS_EXAMPLES", "100"))
CONTROLS = 200
pytestmark = [pytest.mark.timeout(0)] if EXAMPLES > 100 else []


@pytest.fixture(scope="module")
async def yard(server: Server) -> AsyncIterator[Yard]:
    async with open_yard(server, seed=1) as opened:
        yield opened


@settings(max_examples=EXAMPLES)
@given(some_questions)
async def test_every_answer_is_what_a_naive_reader_says(yard: Yard, question: Question) -> None:
    await check(yard.reader_of(question), question)


def test_readers_differ_in_every_limit(yard: Yard) -> None:
    """The control of the chance that draws them: every limit is there, and is not."""
    sights = [reader.sight for reader in yard.readers]
    for name in ("ips", "emails", "global_events", "own_entries"):
        assert {getattr(sight, name) for sight in sights} == {True, False}, name
    for name in ("server_ids", "categories", "actor_id", "staff_as"):
        assert {getattr(sight, name) is None for sight in sights} == {True, False}, name
    assert len(set(sights)) > len(sights) // 2


# --- the walls, and that the oracle would see them fall ---


@pytest.fixture
def first_wall_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement says what its reader may see, nor is the index asked for it."""
    for module in (selection, around, query):
        monkeypatch.setattr(module, "row_conditions", lambda *_, **__: [])
    monkeypatch.setattr(find, "_sight_clauses", lambda _: [])
    monkeypatch.setattr(Sight, "admits_server", lambda *_: True)


async def _ask(yard: Yard, seed: int) -> Counter[str]:
    """How many random lists showed foreign rows, or missed own ones, and of how many rows there were."""
    found: Counter[str] = Counter()
    for question in random_questions(seed, CONTROLS):
        reader = yard.reader_of(question)
        if (shown := await listed(reader, question)) is not None:
            found["rows"] += len(shown)
            found["foreign"] += not set(shown) <= reader.hashes()
            wanted = [event["hash"] for event in reader.wanted(question)]
            found["wrong"] += shown != wanted[: question.limit]
    return found


@pytest.mark.usefixtures("first_wall_dropped")
async def test_with_the_first_wall_dropped_the_second_keeps_every_list_exact(yard: Yard) -> None:
    found = await _ask(yard, seed=2)
    assert found["rows"] > CONTROLS
    assert (found["foreign"], found["wrong"]) == (0, 0)


async def test_with_the_second_wall_dropped_the_first_keeps_every_answer_exact(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every transaction is bound as for who sees everything."""
    monkeypatch.setattr(engine, "binding", lambda _sight: binding(EVERYTHING))
    await _check_all(yard, random_questions(3, CONTROLS // 5))


@pytest.mark.usefixtures("first_wall_dropped")
async def test_with_both_walls_dropped_the_oracle_is_red(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "binding", lambda _sight: binding(EVERYTHING))
    found = await _ask(yard, seed=2)
    assert found["foreign"] > CONTROLS // 10
    with pytest.raises(AssertionError):
        await _check_all(yard, random_questions(2, CONTROLS))


async def _check_all(yard: Yard, asked: Iterable[Question]) -> None:
    for question in asked:
        await check(yard.reader_of(question), question)


# --- the same between the tenants ---


@pytest.fixture
def no_log_named(yard: Yard) -> Iterator[None]:
    """Every comparison of a log with the credential's, forgotten in all statements of the readers."""
    engines = [api.service.database.reads.sync_engine for api in yard.apis]
    for one in engines:
        event.listen(one, "before_execute", _without_log, retval=True)
    yield
    for one in engines:
        event.remove(one, "before_execute", _without_log)


def _without_log(
    conn: Any, clauseelement: Any, multiparams: Any, params: Any, execution_options: Any
) -> tuple[Any, Any, Any]:
    del conn, execution_options
    return replacement_traverse(clauseelement, {}, _true_for_log), multiparams, params


def _true_for_log(element: Any, **_: Any) -> Any:
    names_log = isinstance(element, BinaryExpression) and element.operator is operators.eq
    if names_log and element.left._annotations.get("proxy_key", element.left.key) == "log_id":
        return true() if isinstance(element.right, BindParameter) else None
    return None


@pytest.mark.usefixtures("no_log_named")
async def test_statements_that_forget_the_tenant_show_nothing_of_another(yard: Yard) -> None:
    found = await _ask(yard, seed=4)
    assert found["rows"] > CONTROLS
    assert (found["foreign"], found["wrong"]) == (0, 0)


@pytest.mark.usefixtures("no_log_named")
async def test_bound_to_another_tenant_as_well_they_do_and_the_oracle_is_red(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = [await _log_id(reader) for reader in (yard.readers[0], yard.readers[-1])]
    assert one != other
    genuine = engine.bound
    swapped = {one: other, other: one}
    monkeypatch.setattr(listing, "bound", lambda pool, log_id, sight: genuine(pool, swapped[log_id], sight))
    assert (await _ask(yard, seed=4))["foreign"] > CONTROLS // 10


async def _log_id(reader: OracleReader) -> int:
    credential = await reader.api.service.credential(reader.key)
    assert credential is not None
    return credential.log_id
