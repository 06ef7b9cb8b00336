"""Real senders, driven for real against the service behind its HTTP server: rsyslog, and OpenTelemetry's own SDK."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from audit_service.app import create_app
from audit_service.settings import Settings
from tests.support.adapters import CANARY
from tests.support.api import Api
from tests.support.apps import dump
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase
from tests.support.processes import free_port

RSYSLOGD = shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/local/sbin:/usr/bin")
MODULES = [*Path("/usr/lib").glob("**/rsyslog/omelasticsearch.so")] if RSYSLOGD else []
RSYSLOG = """
global(workDirectory="{folder}")
module(load="imfile" mode="polling" pollingInterval="1")
module(load="omelasticsearch")
template(name="line" type="list" option.jsonf="on") {{
  property(outname="timestamp" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="message" name="msg" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="severity" name="syslogseverity-text" format="jsonf")
}}
input(type="imfile" file="{folder}/in.log" tag="panel:")
action(type="omelasticsearch" server="127.0.0.1" serverport="{port}" template="line" searchIndex="audit" searchType="" bulkmode="on"
       uid="panel" pwd="{key}" errorfile="{folder}/refused.json" action.resumeRetryCount="-1" action.resumeInterval="1")
"""
WAIT_SECONDS = 60


@asynccontextmanager
async def served(settings: Settings, port: int) -> AsyncIterator[Api]:
    """The app behind the real HTTP server of a worker, in this event loop, and a client to look at it."""
    app = create_app(settings)
    config = uvicorn.Config(
        app, port=port, http="httptools", ws="none", lifespan="on", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    listening = asyncio.create_task(server.serve())
    headers = {"Authorization": f"Bearer {BOOTSTRAP_KEY}"}
    try:
        await until(lambda: _is(server.started))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
            yield Api(client, app.state.service)
    finally:
        server.should_exit = True
        await listening


async def _is(value: bool) -> bool:
    return value


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask until the answer is yes; TimeoutError when it never is."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not await condition():  # noqa: ASYNC110 - other processes set no event of ours
            await asyncio.sleep(0.05)


async def events_of(api: Api, count: int) -> list[dict[str, Any]]:
    """The events of the log in its order, once there are `count`."""

    async def are_there() -> bool:
        return len(await api.list(sort="seq", limit=500)) >= count

    await until(are_there)
    return await api.list(sort="seq", limit=500)


@contextmanager
def rsyslog(folder: Path, port: int, lines: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A running rsyslogd that reads `lines` from a file and sends them to the service."""
    if RSYSLOGD is None or not MODULES:
        pytest.skip("rsyslogd with omelasticsearch is not installed (Debian: rsyslog, rsyslog-elasticsearch)")
    (folder / "in.log").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    configuration = folder / "rsyslog.conf"
    configuration.write_text(RSYSLOG.format(folder=folder, port=port, key=BOOTSTRAP_KEY), encoding="utf-8")
    command = [RSYSLOGD, "-n", "-f", str(configuration), "-i", str(folder / "pid")]
    with (folder / "rsyslogd.txt").open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def event_line(number: int) -> str:
    """A line that is an event of ours, as a panel writes it into its log."""
    rows = {"old": {"name": "a", "password": CANARY}, "new": {"name": f"b{number}", "password": CANARY + "2"}}
    return json.dumps({"action": "server.updated", "actor": {"id": 7}, "ip": "203.0.113.9", **rows})


async def test_rsyslog_delivers_lines_and_events(database: TestDatabase, tmp_path: Path) -> None:
    port, settings = free_port(), Settings(database_url=database.serving_url)
    lines = [
        "a plain line",
        f"login failed password={CANARY}",
        event_line(1),
        "@cee: " + event_line(2),
        'quotes " and \\ and é',
    ]
    async with served(settings, port) as api:
        with rsyslog(tmp_path, port, lines):
            events = await events_of(api, len(lines))
        await api.assert_intact(len(lines))
    assert [event["action"] for event in events] == [
        "syslog.message", "syslog.message", "server.updated", "server.updated", "syslog.message",
    ]  # fmt: skip
    assert [events[index]["description"] for index in (0, 4)] == [lines[0], lines[4]]
    assert [change["path"] for change in events[2]["changes"]] == ["/name", "/password"]
    assert all(event["metadata"]["severity"] == "notice" for event in events)
    assert not (tmp_path / "refused.json").exists()
    assert CANARY.encode() not in dump(database.owner_url)


async def test_rsyslog_loses_nothing_while_the_database_is_away(database: TestDatabase, tmp_path: Path) -> None:
    """Told 503 by a connection that breaks, it keeps its lines and comes again: in the end every line is there, once."""
    port = free_port()
    away = Settings(database_url="postgresql://audit_serving:x@127.0.0.1:1/audit")
    lines = [f"line {number}" for number in range(20)]
    with rsyslog(tmp_path, port, lines):
        async with served(away, port) as api:
            before = await refusals_of(api)

            async def was_refused_twice() -> bool:
                return await refusals_of(api) >= before + 2

            await until(was_refused_twice)
            # It is held back: rsyslog by itself comes again a thousand times a second.
            assert await refusals_of(api) <= before + 3
        async with served(Settings(database_url=database.serving_url), port) as api:
            events = await events_of(api, len(lines))
            await api.assert_intact(len(lines))
    assert sorted(event["description"] for event in events) == sorted(lines)
    assert not (tmp_path / "refused.json").exists()


async def refusals_of(api: Api) -> int:
    """How often the service answered 503 to a bulk request, by its own metrics."""
    text = (await api.client.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("audit_http_requests_total{") and '"/_bulk"' in line]
    return sum(int(float(line.split()[-1])) for line in lines if 'status="503"' in line)


async def test_the_opentelemetry_sdk_exports_to_us(database: TestDatabase) -> None:
    logs = pytest.importorskip("opentelemetry._logs", reason="opentelemetry-api is not installed")
    sdk = pytest.importorskip("opentelemetry.sdk._logs", reason="opentelemetry-sdk is not installed")
    export = pytest.importorskip("opentelemetry.sdk._logs.export")
    http = pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http._log_exporter",
        reason="opentelemetry-exporter-otlp-proto-http is not installed",
    )
    compression = pytest.importorskip("opentelemetry.exporter.otlp.proto.http").Compression.Gzip
    port = free_port()

    def emit() -> None:
        exporter = http.OTLPLogExporter(
            endpoint=f"http://127.0.0.1:{port}/v1/logs",
            headers={"Authorization": f"Bearer {BOOTSTRAP_KEY}"},
            compression=compression,
        )
        provider = sdk.LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(export.BatchLogRecordProcessor(exporter))
        logger = provider.get_logger("panel")
        attributes = {"user.name": "Ana", "client.address": "203.0.113.9", "db.password": CANARY, "tags": ["a", "b"]}
        logger.emit(
            logs.LogRecord(timestamp=1795316100500000000, body="hello", event_name="user.login", attributes=attributes)
        )
        logger.emit(logs.LogRecord(timestamp=1795316100500000000, body=json.loads(event_line(1))))
        logger.emit(logs.LogRecord(timestamp=1795316100500000000, body=event_line(2)))
        assert provider.force_flush()
        provider.shutdown()

    async with served(Settings(database_url=database.serving_url), port) as api:
        await asyncio.to_thread(emit)
        login, *updates = await events_of(api, 3)
        await api.assert_intact(3)
    assert (login["action"], login["actor"]["name"], login["context"]["ip"]) == ("user.login", "Ana", "203.0.113.9")
    assert login["metadata"]["attributes"] == {"db.password": "[redacted]", "tags": ["a", "b"]}
    assert [update["changes"][0]["new"] for update in updates] == ["b1", "b2"]
    assert {update["occurred_at"] for update in updates} == {"2026-11-22T02:55:00.500000Z"}
    assert CANARY.encode() not in dump(database.owner_url)
