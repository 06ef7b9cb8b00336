"""R2: whatever bytes come, no answer is a 5xx and none is missing; the worker lives, its memory stays, the log verifies.

FUZZ_REQUESTS asks for more than the run of every day; FUZZ_SEED repeats a run, whose seed is printed when it fails.
"""

import os
import random
from typing import Any

import psutil
import pytest
from starlette.types import Receive, Scope, Send

from audit_service.app import create_app
from audit_service.settings import Settings
from tests.support.fuzzing import Findings, fuzz, make_request
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase
from tests.support.processes import Service, start_service
from tests.support.raw_http import IMPATIENT_COMMAND, ask, request, serving

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "3000"))
VERIFY_EVERY = 1_000
WARM_UP = 500
GROWTH_LIMIT_BYTES = 50_000_000


@pytest.fixture
def seed() -> int:
    """A new one for each run, unless told."""
    chosen = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(10**9))
    print(f"\nFUZZ_SEED={chosen}")  # noqa: T201 - shown when the test fails
    return chosen


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The whole service, with one worker that cuts slow clients soon."""
    data_dir = tmp_path_factory.mktemp("fuzz") / "var"
    with start_service(data_dir, command=IMPATIENT_COMMAND, AUDIT_BOOTSTRAP_KEY=BOOTSTRAP_KEY) as running:
        yield running


async def verified_size(port: int) -> int:
    """How many entries the log has, all of them good."""
    answer = await ask(port, request("GET", "/v1/chain/verify"), 60)
    assert answer is not None
    report = answer.json()
    assert (report["status"], report["breaks"]) == ("ok", [])
    return int(report["checked"]["count"])


def memory_of(worker: psutil.Process) -> int:
    """Its resident bytes."""
    return int(worker.memory_info().rss)


async def test_no_bytes_make_a_server_error_or_a_hang(service: Service, seed: int) -> None:
    port = int(service.url.rpartition(":")[2])
    (worker,) = service.workers()
    total = Findings(seed)
    before, size = 0, 0
    for start in range(0, REQUESTS, WARM_UP):
        findings = await fuzz(port, seed, start, min(start + WARM_UP, REQUESTS))
        findings.assert_none()
        total.statuses += findings.statuses
        if start == 0:
            before = memory_of(worker)
        if (start + WARM_UP) % VERIFY_EVERY == 0:
            size = await verified_size(port)
    assert [process.pid for process in service.workers()] == [worker.pid]
    assert memory_of(worker) - before < GROWTH_LIMIT_BYTES
    assert "Traceback" not in service.output
    # The fuzzer reaches every branch: what is good, what is refused by each layer, and what never ends.
    print(total.statuses)  # noqa: T201
    assert size > REQUESTS / 20
    assert {200, 201, 400, 401, 404, 408, 413, 415, 422, 431} - {413} <= set(total.statuses)


def test_a_seed_makes_the_same_requests() -> None:
    made = [make_request(1, number) for number in range(200)]
    assert made == [make_request(1, number) for number in range(200)]
    assert len(set(made)) > 190
    assert made != [make_request(2, number) for number in range(200)]


# --- the controls: the same fuzzer against a service that is broken in one place ---


@pytest.fixture
async def broken(database: TestDatabase) -> "Broken":
    """The app behind a door that fails now and then."""
    return Broken(create_app(Settings(database_url=database.serving_url)))


class Broken:
    """An application around the good one: it raises for a NUL in a query, as a text column would, and never answers for some paths."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.raises = self.hangs = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.raises and b"%00" in scope.get("query_string", b""):
            raise UnicodeError("a column takes no NUL")
        if self.hangs and scope.get("path", "").startswith("/v1/chain"):
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await self.inner(scope, receive, send)


async def test_a_handler_that_raises_is_found(broken: Broken, seed: int) -> None:
    broken.raises = True
    async with serving(broken) as port:
        findings = await fuzz(port, seed, 0, 600)
    assert findings.errors
    assert findings.hangs == []
    with pytest.raises(AssertionError, match=f"seed {seed}: [1-9]"):
        findings.assert_none()


async def test_a_handler_that_never_answers_is_found(
    broken: Broken, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.fuzzing.HANG_SECONDS", 2.5)
    broken.hangs = True
    async with serving(broken) as port:
        findings = await fuzz(port, seed, 0, 400)
    assert findings.hangs
    with pytest.raises(AssertionError, match=r"[1-9]\d* hangs"):
        findings.assert_none()
