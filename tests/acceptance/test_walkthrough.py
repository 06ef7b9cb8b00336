"""The README's questions, each asked with the one call it names, of the log that `make demo` plays."""

import re
from datetime import date
from pathlib import Path

import httpx

from audit_service.demo_events import sample_day
from tests.support.apps import open_api
from tests.support.postgres import TestDatabase

README = Path(__file__).resolve().parents[2] / "README.md"
# | question | `/v1/…` | first answer | how many |
ROW = re.compile(r"^\| ([^|]+\?[^|]*) \| `(/v1/[^`]+)` \| ([^|]+) \| (\d+) \|$", re.MULTILINE)


async def test_each_question_of_the_readme_is_answered_by_its_one_call(database: TestDatabase) -> None:
    rows = ROW.findall(README.read_text("utf-8"))
    assert len(rows) >= 6
    async with open_api(database) as api:
        for delivery in sample_day(date(2026, 11, 20)).deliveries:
            response = await api.client.post("/v1/events", content=delivery.body, headers=delivery.headers)
            assert response.status_code in (200, 201, 207), response.text
        told = {question: (first, int(count)) for question, _, first, count in rows}
        assert {question: await answer(api.client, path) for question, path, _, _ in rows} == told


async def answer(client: httpx.AsyncClient, path: str) -> tuple[str, int]:
    """The sentence of the first event, and how many there are."""
    response = await client.get(path)
    assert response.status_code == 200, response.text
    events = response.json()["events"]
    return (events[0]["summary"] if events else "", len(events))
