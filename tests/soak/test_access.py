"""`make soak`: ten thousand random questions over HTTP, of readers whose limits are drawn anew every 500: no foreign row, count or facet.

ACCESS_SEED gives the same events and readers once more. A question that is answered wrongly is printed whole by hypothesis.
"""

import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings

from tests.soak.test_soak import CYCLES
from tests.support.access_oracle import Question, Yard, check, open_yard, some_questions
from tests.support.postgres import Server

QUESTIONS = 10_000
_OF_ONE_YARD = 500
_SEED = int(os.environ.get("ACCESS_SEED", "0")) or int.from_bytes(os.urandom(4), "big")

pytestmark = [pytest.mark.skipif(not CYCLES, reason="long: `make soak` runs it"), pytest.mark.timeout(0)]


@pytest.fixture(scope="module", params=range(QUESTIONS // _OF_ONE_YARD))
async def yard(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[Yard]:
    print(f"\nACCESS_SEED={_SEED}, yard {request.param}", flush=True)  # noqa: T201 - what a soak shows
    async with open_yard(server, _SEED + request.param) as opened:
        yield opened


@settings(max_examples=_OF_ONE_YARD)
@given(some_questions)
async def test_ten_thousand_answers_are_what_a_naive_reader_says(yard: Yard, question: Question) -> None:
    await check(yard.reader_of(question), question)
