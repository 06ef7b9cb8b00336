"""Probes, metrics and logs: they tell how the service is, and nothing of what it was sent."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from sqlalchemy import event, text

from audit_service.api.logs import configure
from audit_service.app import create_app
from audit_service.settings import Settings
from audit_service.store import engine
from tests.support.api import Api
from tests.support.apps import add_tenant, open_api
from tests.support.identity import running_provider, settings_for
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase

CANARY = "hunter2-canary-value"


@contextmanager
def worker_logs(wanted: str = "info") -> Iterator[None]:
    """Logs are written as a worker writes them. Not a fixture: pytest opens the captured stream anew for each phase."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure(wanted)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The log lines since the last look; each is one JSON object."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


# --- probes ---


async def test_a_good_service_is_alive_and_ready(shared_api: Api) -> None:
    assert (await shared_api.client.get("/healthz")).json() == {"status": "ok"}
    response = await shared_api.client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ready", "problems": []})


@pytest.fixture(params=["a socket nobody listens on", "a socket that is not there"])
async def cut_off(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The app with a database that is away."""
    url = "postgresql://audit_serving:secret-password@127.0.0.1:1/audit"
    if request.param.endswith("not there"):
        url = f"postgresql://audit_serving:secret-password@/audit?host={tmp_path}"
    app = create_app(Settings(database_url=url))
    headers = {"Authorization": f"Bearer {BOOTSTRAP_KEY}"}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://audit.test", headers=headers) as client:
        yield client
    await app.state.service.database.dispose()


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/events"), ("GET", "/v1/events"), ("GET", "/v1/events/x"), ("GET", "/v1/export"), ("GET", "/v1/chain"),
     ("GET", "/v1/chain/verify"), ("GET", "/v1/keys"), ("POST", "/v1/keys"), ("DELETE", "/v1/keys/x")],
)  # fmt: skip
async def test_without_its_database_every_call_says_to_come_back(
    cut_off: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await cut_off.request(method, path, json={"action": "x"} if method == "POST" else None)
    assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["type"] == "urn:audit-service:problem:unavailable"
    assert "secret-password" not in response.text


async def test_without_its_database_the_service_is_alive_and_not_ready(cut_off: httpx.AsyncClient) -> None:
    assert (await cut_off.get("/healthz")).status_code == 200
    response = await cut_off.get("/readyz")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json() == {"status": "not ready", "problems": ["the database is not reachable"]}


async def test_the_service_is_there_again_when_its_database_is(api: Api, database: TestDatabase) -> None:
    """The pools hold connections that the server has ended; nobody is to notice."""
    await api.accept({"id": "before", "action": "x"})
    owner: asyncpg.Connection = await database.owner()
    await owner.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await owner.close()
    answers = [(await api.client.get("/v1/events")).status_code for _ in range(10)]
    assert answers[-1] == 200
    assert set(answers) <= {200, 503}
    (receipt,) = await api.accept({"id": "after", "action": "x"})
    assert receipt["seq"] == 1
    await api.assert_intact(2)


@pytest.mark.parametrize(
    ("setting", "commit"),
    [
        ("synchronous_commit = off", "on"),
        ("synchronous_commit = local", "on"),
        ("synchronous_commit = remote_write", "on"),
        ("synchronous_commit = remote_apply", "remote_apply"),
        ("default_transaction_isolation = 'repeatable read'", "on"),
        ("default_transaction_read_only = on", "on"),
    ],
)
async def test_defaults_of_role_or_database_can_strengthen_an_append_and_not_weaken_it(
    api: Api, database: TestDatabase, setting: str, commit: str
) -> None:
    """The serving role may change its own defaults; every connection of ours says for itself what it needs."""
    owner = await database.owner()
    await owner.execute(f"ALTER ROLE audit_serving IN DATABASE {database.name} SET {setting}")
    await owner.execute(f"ALTER DATABASE {database.name} SET {setting}")
    await owner.close()
    await api.service.database.dispose()
    assert (await api.client.get("/readyz")).json() == {"status": "ready", "problems": []}
    assert (await api.post({"action": "x"})).status_code == 201
    async with api.service.database.writes.connect() as connection:
        shown = [
            await connection.scalar(text(f"SHOW {name}")) for name in ("synchronous_commit", "transaction_isolation")
        ]
        source = await connection.scalar(text("SELECT source FROM pg_settings WHERE name = 'synchronous_commit'"))
    assert shown == [commit, "read committed"]
    assert source == "session"  # so that a reload of the server's configuration changes nothing either


async def test_readiness_names_a_setting_that_could_lose_events(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a rule that the server does not meet, since a server that could lose events is not started for a test."""
    monkeypatch.setitem(engine.DURABLE_SETTINGS, "full_page_writes", ("off",))
    response = await api.client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["problems"] == ["full_page_writes is on, must be off"]


async def test_readiness_names_a_schema_of_another_version(api: Api, database: TestDatabase) -> None:
    owner = await database.owner()
    await owner.execute("UPDATE audit.alembic_version SET version_num = '0000'")
    await owner.close()
    response = await api.client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["problems"][0].startswith("the schema is at revision 0000, this version needs ")


# --- metrics ---


async def metrics(api: Api) -> dict[str, float]:
    """The metrics by name and labels."""
    response = await api.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    values = [line.rsplit(" ", 1) for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in values}


async def test_metrics_count_events_by_what_became_of_them(shared_api: Api) -> None:
    before = await metrics(shared_api)
    noop = {"action": "x", "before": {"a": 1}, "after": {"a": 1}}
    events = [
        {"id": "m", "action": "x"},
        {"id": "m", "action": "x"},
        {"id": "m", "action": "y"},
        noop,
        {},
        {"action": "x"},
    ]
    await shared_api.client.post("/v1/events", json=events)
    after = await metrics(shared_api)
    grown = {
        outcome: after.get(name := f'audit_events_total{{outcome="{outcome}"}}', 0) - before.get(name, 0)
        for outcome in ("appended", "replayed", "conflict", "not_kept", "rejected")
    }
    assert grown == {"appended": 2, "replayed": 1, "conflict": 1, "not_kept": 1, "rejected": 1}


async def test_metrics_count_requests_by_route_and_never_by_path(shared_api: Api) -> None:
    before = await metrics(shared_api)
    await shared_api.client.get(f"/v1/events/{CANARY}?x={CANARY}")
    await shared_api.client.get(f"/{CANARY}")
    after = await metrics(shared_api)
    for route, status in (("/v1/events/{event_id:path}", 400), ("unmatched", 404)):
        name = f'audit_http_requests_total{{method="GET",route="{route}",status="{status}"}}'
        assert after[name] == before.get(name, 0) + 1
    assert CANARY not in str(after)
    assert after['audit_http_request_seconds_count{route="unmatched"}'] >= 1


async def test_metrics_and_documents_can_be_switched_off(module_database: TestDatabase) -> None:
    async with open_api(module_database, metrics_enabled=False, docs_enabled=False) as api:
        for path in ("/metrics", "/docs", "/openapi.json"):
            response = await api.client.get(path)
            assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


async def test_sums_of_sizes_are_for_one_tenant_or_for_who_has_the_metrics_key(database: TestDatabase) -> None:
    """Whoever knows the size of their own log would learn from a sum how much the others did."""
    sizes = {"audit_log_size", "audit_checkpoint_size", "audit_verified_size"}
    metrics_key = "m" * 32

    async def shown(**settings: Any) -> set[str]:
        async with open_api(database, **settings) as api:
            answer = await api.client.get("/metrics", headers={"Authorization": f"Bearer {metrics_key}"})
        names = {line.split()[0] for line in answer.text.splitlines()}
        assert {"audit_unsigned_logs", "audit_broken_logs"} <= names
        return sizes & names

    assert await shown() == sizes
    await add_tenant(database, "another")
    assert await shown() == set()
    assert await shown(metrics_key=metrics_key) == sizes


# --- logs ---


async def test_a_request_is_one_line_with_its_route_and_key_and_nothing_it_held(
    shared_api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    with worker_logs("debug"):
        await shared_api.post(
            {"id": CANARY, "action": "x", "reason": CANARY, "metadata": {"password": CANARY}},
            **{"X-Something": CANARY, "User-Agent": CANARY, "Idempotency-Key": CANARY},
        )
        await shared_api.client.get(f"/v1/events?actor={CANARY}&nothing={CANARY}")
        await shared_api.client.get(f"/v1/events/{CANARY}", headers={"Authorization": f"Bearer {CANARY}"})
        await shared_api.client.post("/v1/events", content=CANARY, headers={"Content-Type": "application/json"})
    found = [line for line in lines(capsys) if line["event"] == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in found] == [
        ("POST", "/v1/events", 201),
        ("GET", "/v1/events", 400),
        ("GET", "/v1/events/{event_id:path}", 401),
        ("POST", "/v1/events", 400),
    ]
    assert [line["key"] is not None for line in found] == [True, True, False, True]
    assert CANARY not in json.dumps(found)
    assert [line["level"] for line in found] == ["debug", "info", "info", "info"]


async def test_good_requests_are_only_counted_unless_asked_for(
    shared_api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    with worker_logs():
        await shared_api.accept({"action": "x"})
        await shared_api.client.get("/v1/nothing")
    assert [line["status"] for line in lines(capsys) if line["event"] == "request"] == [404]


async def test_an_exception_of_a_library_is_logged_by_its_place_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with worker_logs():
        try:
            raise ValueError(CANARY)  # noqa: TRY301 - an exception with a traceback is what is wanted
        except ValueError:
            logging.getLogger("some.library").exception("it failed")
    (line,) = lines(capsys)
    assert (line["event"], line["error"], line["level"]) == ("it failed", "ValueError", "error")
    assert any("test_operations.py" in place for place in line["trace"])
    assert CANARY not in json.dumps(line)


async def test_control_characters_cannot_break_a_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    with worker_logs():
        logging.getLogger("some.library").warning("a\nb\x1b[31m\u2028c")
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert text.isascii()
    assert json.loads(text)["event"] == "a\nb\x1b[31m\u2028c"


async def test_metrics_do_not_read_every_log_at_every_scrape(api: Api) -> None:
    """However many ask at once, and however often: each worker looks once in two seconds."""
    borrowed: list[object] = []
    event.listen(api.service.database.reads.sync_engine, "checkout", lambda *_: borrowed.append(None))
    answers = await asyncio.gather(*(api.client.get("/metrics") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert all("audit_log_size" in answer.text for answer in answers)
    looked = len(borrowed)
    assert looked >= 2
    await api.client.get("/metrics")
    assert len(borrowed) == looked
    api.service.lags.read_at -= 2
    await api.client.get("/metrics")
    assert len(borrowed) > looked


async def test_a_limit_and_a_forged_token_are_lines_with_address_and_key(
    module_database: TestDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever tries is told apart by them; what they tried with is in no line."""
    async with running_provider() as provider:
        head, payload, signature = provider.token().split(".")
        forged = ".".join((head, payload, signature[::-1]))
        settings = settings_for(provider, rate_limit_requests_per_second=1)
        async with open_api(module_database, **settings) as api:
            credential = await api.service.credential(BOOTSTRAP_KEY)
            assert credential is not None
            with worker_logs():
                await api.client.get("/v1/chain", headers={"Authorization": f"Bearer {forged}"})
                while (await api.client.get("/v1/chain")).status_code == 200:
                    pass
            written = capsys.readouterr().err
    found = [line for line in map(json.loads, written.splitlines()) if line["event"] == "request"]
    assert [(line["route"], line["status"], line["peer"], line["key"]) for line in found] == [
        ("/v1/chain", 401, "127.0.0.1", None),
        ("/v1/chain", 429, "127.0.0.1", credential.key_id),
    ]
    assert not any(secret in written for secret in (BOOTSTRAP_KEY, payload, signature[::-1]))
