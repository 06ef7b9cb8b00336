"""Random questions of random readers over HTTP: no foreign row, count or facet, and nothing less than what they may see.

The readers' limits are drawn by chance and given out by the service itself, as keys and viewer tokens. ACCESS_EXAMPLES says how many
questions; `make soak` asks ten thousand.
"""

import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings

from audit_service.store import around, engine, find, query, selection
from audit_service.store.limits import binding
from audit_service.core.sight import EVERYTHING
from tests.support.access_oracle import (
    OracleReader,
    Question,
    Yard,
    check,
    check_export,
    check_list,
    open_yard,
    random_questions,
    some_questions,
)
from tests.support.naive_sight import seen
from tests.support.oracle import ordered
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
