"""R2: whatever bytes come, no answer is a 5xx and none is missing; the worker lives, its memory stays, the log verifies.

FUZZ_REQUESTS asks for more than the run of every day; FUZZ_SEED repeats a run, whose seed is printed when it fails.
"""

import contextlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import Phase, given, reject, settings
from hypothesis.errors import Unsatisfiable
from starlette.types import Receive, Scope, Send

from audit_service.app import create_app
from audit_service.settings import Settings
from tests.support.fuzzing import HANG_SECONDS, Findings, fuzz, make_request
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase
from tests.support.processes import Service, start_service
from tests.support.raw_http import IMPATIENT_COMMAND, ask, request, serving

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "3000"))
VERIFY_EVERY = 1_000
WARM_UP = 500
SCHEMA_EXAMPLES = 15
SCHEMA_HEADERS = frozenset({"content-type", "idempotency-key"})
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
    growth = memory_of(worker) - before
    assert growth < GROWTH_LIMIT_BYTES
    assert "Traceback" not in service.output
    # The fuzzer reaches every branch: what is good, what is refused by each layer, and what never ends.
    print(f"{total.statuses}, {growth} bytes of growth")  # noqa: T201 - shown when the test fails
    assert size > REQUESTS / 20
    assert {200, 201, 400, 401, 404, 408, 413, 415, 422, 431} - {413} <= set(total.statuses)


def test_what_the_schema_allows_and_forbids_makes_no_server_error(service: Service) -> None:
    """Schemathesis, for each call of the published document; hypothesis prints what repeats a failure."""
    schemathesis = pytest.importorskip("schemathesis")
    document = schemathesis.openapi.from_path(Path(__file__).parents[2] / "openapi.yaml")
    headers = {"Authorization": f"Bearer {BOOTSTRAP_KEY}", "Accept-Encoding": "identity"}
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) >= 12
    client = httpx.Client(base_url=service.url, headers=headers, trust_env=False, timeout=HANG_SECONDS)
    statuses: Counter[int] = Counter()

    def check(case: Any) -> None:
        sent = case.as_transport_kwargs(base_url=service.url)
        own = {name: value for name, value in sent["headers"].items() if name.lower() in SCHEMA_HEADERS}
        content = json.dumps(sent["json"]).encode() if "json" in sent else sent.get("data")
        try:
            response = client.request(
                sent["method"], sent["url"], params=sent.get("params"), content=content, headers=own
            )
        except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeEncodeError):
            reject()  # what a client refuses to send is the raw fuzzer's part
        statuses[response.status_code] += 1
        assert response.status_code < 500, response.text

    with client:
        for operation in operations:
            for mode in schemathesis.GenerationMode:
                # schemathesis's own types are not seen here, so `given` returns a callable without any.
                run: Callable[[], None] = given(operation.as_strategy(generation_mode=mode))(check)  # type: ignore[no-untyped-call]
                with contextlib.suppress(Unsatisfiable):  # a call without parameters has no wrong form
                    settings(max_examples=SCHEMA_EXAMPLES, phases=(Phase.generate, Phase.shrink), database=None)(run)()
    print(statuses)  # noqa: T201 - shown when the test fails
    assert statuses[200] + statuses[201] > 50
    assert statuses[400] + statuses[422] > 50


def test_a_seed_makes_the_same_requests() -> None:
    made = [make_request(1, number) for number in range(200)]
    assert made == [make_request(1, number) for number in range(200)]
    assert len(set(made)) > 150
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
