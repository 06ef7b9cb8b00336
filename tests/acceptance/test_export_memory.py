"""P6, scaled down: while a log is exported the service grows by its formatter and a few pieces, not by the log.

`python -m benchmarks p6` measures the same at a million events.
"""

from collections.abc import Iterator

import httpx
import psutil
import pytest
from benchmarks.memory import resident_bytes, sampled

from tests.support.processes import Service, start_service

EVENTS, BATCH_EVENTS = 12_000, 500
GROWTH_BYTES = 50 * 2**20
SAMPLE_SECONDS = 0.02
# A client that takes its time: what the service cannot send must not pile up in it.
SIP_BYTES = 64 * 1024


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose events, read and written at once, would not fit beside the formatter into what it may grow by."""
    with start_service(tmp_path_factory.mktemp("memory") / "data") as started:
        headers = {"Authorization": f"Bearer {started.admin_key}"}
        with httpx.Client(base_url=started.url, headers=headers, trust_env=False, timeout=60) as client:
            for start in range(0, EVENTS, BATCH_EVENTS):
                many = [_event(number) for number in range(start, start + BATCH_EVENTS)]
                assert client.post("/v1/events", json=many).status_code == 201
        yield started


def _event(number: int) -> dict[str, object]:
    return {"action": "memory.test", "description": f"{number} changed " * 150}


@pytest.mark.parametrize("query", ["format=csv", "format=json", "format=ndjson", "format=ndjson&gzip=true"])
def test_an_export_takes_memory_for_a_few_pieces_only(service: Service, query: str) -> None:
    before, total = _resident_bytes(service), 0
    headers = {"Authorization": f"Bearer {service.admin_key}"}
    with (
        sampled(lambda: _resident_bytes(service), SAMPLE_SECONDS) as found,
        httpx.stream("GET", f"{service.url}/v1/export?{query}", headers=headers, trust_env=False, timeout=60) as answer,
    ):
        assert answer.status_code == 200
        for sip in answer.iter_raw(SIP_BYTES):
            total += len(sip)
    assert max(found) - before <= GROWTH_BYTES
    if "gzip" not in query:
        assert total > GROWTH_BYTES / 2  # which is read, and written


def _resident_bytes(service: Service) -> int:
    """Of supervisor, worker, indexer and formatter."""
    return resident_bytes([*service.children(), psutil.Process(service.process.pid)])
