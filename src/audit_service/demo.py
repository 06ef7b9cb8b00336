"""`audit-service demo`: the whole story on a throw-away instance, told in one page.

1. Start the real service (`serve`, with the embedded PostgreSQL) on an empty temporary folder.
2. Post the sample day of `demo_events` over HTTP, a retry and an update without a change among it.
3. Ask what panel users ask, each with the one call that answers it.
4. Search for every secret that was sent: in all tables, and in the bytes of all files of the instance.
5. Verify: ok.
6. Tamper with one row as the database owner, past privileges and trigger.
7. Verify: broken, with seq, kind and column.

Nothing is claimed that is not checked: a step that goes otherwise ends the story with exit 1. The SQL here is the attacker's
and the searcher's, who have no use for our store.
"""

import asyncio
import contextlib
import os
import queue
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn, cast
from urllib.parse import urlencode

import asyncpg
import httpx
import orjson
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from audit_service.core.canonical import JSONValue, canonical_text
from audit_service.core.entry import SALT_BYTES, JSONObject
from audit_service.core.view import disclosed
from audit_service.demo_events import (
    ANA,
    INTRUDER,
    LENA,
    OLD_FORUM,
    PANELS,
    PRIYA,
    SCHEDULE_ID,
    SCHEDULE_NAME,
    SHOP_DB,
    TOM,
    Day,
    Delivery,
    sample_day,
)
from audit_service.embedded import EmbeddedPostgres
from audit_service.errors import AuditError

EXIT_AS_TOLD, EXIT_OTHERWISE = 0, 1
WIDTH = 100
_START_SECONDS = 120.0
_STOP_SECONDS = 40.0
_LISTENING = "listening on "
_RETENTION = "/retention_days"


class StoryError(AuditError):
    """The story did not go as told; the text says where."""


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody asks, the call that answers it, how an answer reads, and what must be in it."""

    asked: str
    path: str
    query: Mapping[str, str | Sequence[str]]
    tell: Callable[[list[JSONObject]], list[str]]
    expected: tuple[str, ...]


def run(*, keep: bool) -> int:
    """Tell the story. Returns 0 when every step went as told, else 1; `keep` leaves the data directory behind."""
    out = _console()
    key = "demo-" + secrets.token_urlsafe(32)
    data_dir = Path(tempfile.mkdtemp(prefix="audit-demo-"))
    said: list[str] = []
    try:
        with _stop_signals_raise(), _serving(data_dir, key, said) as url:
            _line(out, f"A throw-away audit-service with its own PostgreSQL runs on {url}.")
            _tell(out, url, key, data_dir)
        _line(out, "")
        _line(out, "Everything above was checked as it was printed: the story went as told.", "bold green")
    except (StoryError, httpx.HTTPError, asyncpg.PostgresError, OSError) as error:
        detail = error.detail if isinstance(error, AuditError) else f"{type(error).__name__}: {error}"
        _line(out, f"The story did not go as told: {detail}", "bold red")
        for line in said[-10:]:
            _line(out, f"  serve said: {line}")
        return EXIT_OTHERWISE
    else:
        return EXIT_AS_TOLD
    finally:
        _leave(out, data_dir, key, keep=keep)


def _tell(out: Console, url: str, key: str, data_dir: Path) -> None:
    day = sample_day((datetime.now(UTC) - timedelta(days=1)).date())
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        receipts = _post(out, client, day)
        _ask(out, client)
        _search(out, data_dir, day)
        _verify_intact(out, client, len({str(receipt["seq"]) for receipt in receipts.values() if receipt["kept"]}))
        event = _events(client, "/v1/events", {"target_id": SCHEDULE_ID, "actor": INTRUDER.id, "verb": "UPDATE"})[0]
        seq, groups = _tamper(out, client, event, data_dir)
        _verify_broken(out, client, seq, groups)


# -- the instance --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _serving(data_dir: Path, key: str, said: list[str]) -> Iterator[str]:
    """Run `serve` on `data_dir`; gives its URL once it listens, ends it at the end. `said` gathers its lines."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_")} | {
        "AUDIT_DATA_DIR": str(data_dir),
        "AUDIT_PORT": "0",
        "AUDIT_BOOTSTRAP_KEY": key,
        "AUDIT_LOG_LEVEL": "warning",
    }
    # In a session of its own: a Ctrl-C in the terminal reaches only us, and we stop it in order.
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "audit_service.cli", "serve"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(process, said, news), daemon=True)
    reader.start()
    try:
        yield _wait_until_listening(news)
    finally:
        with _signals_ignored():
            _end(process)
        reader.join(10)


def _read(process: "subprocess.Popen[str]", said: list[str], news: "queue.SimpleQueue[str | None]") -> None:
    """Keep the pipe empty, so that the service never waits for us."""
    with process.stderr or contextlib.nullcontext([]) as lines:
        for line in lines:
            said.append(line.rstrip())
            news.put(line.rstrip())
    news.put(None)


def _wait_until_listening(news: "queue.SimpleQueue[str | None]") -> str:
    """The URL `serve` announces, with its lines shown on the way. From there on a client waits instead of being refused."""
    progress = Console(stderr=True, highlight=False)
    deadline = time.monotonic() + _START_SECONDS
    with progress.status("starting a throw-away instance"):
        while True:
            try:
                line = news.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise StoryError(f"the service did not listen within {_START_SECONDS:g} s") from None
            if line is None:
                raise StoryError("the service ended while starting")
            if _LISTENING in line:
                return line.partition(_LISTENING)[2]
            progress.print(f"  {line}", markup=False, soft_wrap=True)


def _end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # what it started dies with it
        process.wait()


@contextlib.contextmanager
def _stop_signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind as Ctrl-C does, so that nothing stays behind."""

    def leave(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, leave) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """An impatient second Ctrl-C must not leave a database running."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _leave(out: Console, data_dir: Path, key: str, *, keep: bool) -> None:
    if not keep:
        shutil.rmtree(data_dir, ignore_errors=True)
        return
    program = shlex.quote(str(Path(sys.executable).with_name("audit-service")))
    _line(out, f"\nThe instance, tampered row included, is kept in {data_dir}. To go on with it:")
    _line(out, f"  export AUDIT_DATA_DIR={shlex.quote(str(data_dir))}")
    _line(out, f"  export AUDIT_BOOTSTRAP_KEY={key}")
    _line(out, f"  {program} serve")


# -- steps 2 to 5: post, ask, search, verify ------------------------------------------------------------------


def _post(out: Console, client: httpx.Client, day: Day) -> dict[str, JSONObject]:
    """Post the day; the first receipt of each event id."""
    receipts: dict[str, JSONObject] = {}
    told: dict[str, str] = {}
    progress = Console(stderr=True)
    with Progress(console=progress, transient=True, disable=not progress.is_terminal) as bar:
        for delivery in bar.track(day.deliveries, description="posting the day"):
            response = client.post("/v1/events", content=delivery.body, headers=delivery.headers)
            for event, receipt in zip(delivery.events, receipts_of(delivery, response), strict=True):
                first = receipts.setdefault(cast("str", event["id"]), receipt)
                _check(first == receipt, f"the retry of {event['id']} got another receipt")
            if delivery.fate != "kept":
                told[delivery.fate] = cast("str", delivery.events[0]["id"])
    _title(out, 1, "A day of five panels: POST /v1/events")
    table = _table("panel", "events", "sent as")
    for panel in PANELS:
        sent = [delivery for delivery in day.deliveries if delivery.events[0]["source"] == {"id": panel, "seq": _number(delivery)}]
        shapes = Counter(delivery.shape for delivery in sent)
        named = {"single": "single", "batch": "batch", "array": "array", "ndjson": "NDJSON stream"}
        table.add_row(panel, str(sum(len(delivery.events) for delivery in sent)), ", ".join(f"{n} × {named[s]}" for s, n in shapes.items()))
    out.print(table)
    kept = sum(bool(receipt["kept"]) for receipt in receipts.values())
    _line(out, f"  {kept} entries in the chain.")
    _line(out, f"  {told['replayed']} was sent twice: the retry got the first receipt, Idempotent-Replayed: true.")
    _line(out, f"  {told['not kept']} changed nothing but updated_at: kept: false.")
    return receipts
