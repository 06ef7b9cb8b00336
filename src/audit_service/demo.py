"""`audit-service demo`: the whole story on a throw-away instance, told in one page.

1. Start the real service (`serve`, with the embedded PostgreSQL) on an empty temporary folder.
2. Post the sample day of `demo_events` over HTTP, a retry and an update that changes nothing among it.
3. Ask what panel users ask, each with the one call that answers it.
4. Search for every secret that was sent: in all tables, and in the bytes of all files of the instance.
5. Verify: ok.
6. Tamper with one row as the database owner, past privileges and trigger.
7. Verify: broken, with seq, kind and column.

A step that goes otherwise ends the story with exit 1. The SQL here is the searcher's and the attacker's, not the store's.
"""

import asyncio
import contextlib
import io
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar, cast
from urllib.parse import urlencode

import asyncpg
import httpx
import orjson
from rich.console import Console

from audit_service import demo_events as sample
from audit_service.console import unwind
from audit_service.core.canonical import JSONValue, canonical_text
from audit_service.core.entry import SALT_BYTES, JSONObject
from audit_service.core.view import disclosed
from audit_service.embedded import EmbeddedPostgres
from audit_service.errors import AuditError

EXIT_AS_TOLD, EXIT_OTHERWISE = 0, 1
WIDTH = 100

_START_SECONDS, _STOP_SECONDS, _POLL_SECONDS = 120.0, 40.0, 0.05
_LISTENING = "listening on "
_LOG_NAME = "serve.log"
_SHAPES = {"single": "single event", "batch": "batch", "array": "bare array", "ndjson": "NDJSON stream"}
_DISABLE = "ALTER TABLE audit.entry DISABLE TRIGGER entry_no_update"
_UPDATE = "UPDATE audit.entry SET actor_name = $1, d_changes = $2 WHERE seq = $3"
_ENABLE = "ALTER TABLE audit.entry ENABLE ALWAYS TRIGGER entry_no_update"
_LIMITS = (
    "The same owner could drop the newest entries, or re-hash the whole log, and set the head to match: that verifies. "
    "Only a head (GET /v1/chain) or a checkpoint kept elsewhere shows it."
)
_T = TypeVar("_T")


class StoryError(AuditError):
    """The story did not go as told; the text says where."""


def run(*, keep: bool) -> int:
    """Tell the story. Returns 0 when every step went as told, else 1; `keep` leaves the data directory behind."""
    out = Console(highlight=False)
    # Where it is no terminal, rich would take 80.
    out.width = min(out.width, WIDTH) if out.is_terminal else WIDTH
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show an arrow still gets the story
    key = "demo-" + secrets.token_urlsafe(32)
    with _signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), unwind):
        data_dir = Path(tempfile.mkdtemp(prefix="audit-demo-"))
        try:
            with _serving(data_dir, key) as url:
                _tell(out, url, key, data_dir)
        except (AuditError, httpx.HTTPError, asyncpg.PostgresError, OSError) as error:
            detail = error.detail if isinstance(error, AuditError) else f"{type(error).__name__}: {error}"
            _line(out, f"\nThe story did not go as told: {detail}", "bold red")
            for line in _said(data_dir)[-10:]:
                _line(out, f"   serve said: {line}")
            return EXIT_OTHERWISE
        finally:
            _leave(out, data_dir, key, keep=keep)
    return EXIT_AS_TOLD


def _tell(out: Console, url: str, key: str, data_dir: Path) -> None:
    """Steps 2 to 7."""
    day = sample.sample_day(datetime.now(UTC).date() - timedelta(days=1))
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False) as client:
        _line(out, f"A throw-away audit-service with a PostgreSQL of its own, on {url}", "bold")
        size = _post(out, client, day)
        _ask(out, client)
        _search(out, client, data_dir, day)
        intact = _verify_intact(out, client, size)
        seq = _tamper(out, client, data_dir)
        _verify_broken(out, client, intact, seq)


# -- 1. start ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _serving(data_dir: Path, key: str) -> Iterator[str]:
    """Run `serve` on `data_dir`, where it also logs; gives its URL once it listens, and ends it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_")}
    with (data_dir / _LOG_NAME).open("wb") as log:
        # In a session of its own: a Ctrl-C in the terminal reaches only us, and we stop it in order.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "audit_service.cli", "serve"],
            env=environment | {"AUDIT_DATA_DIR": str(data_dir), "AUDIT_PORT": "0", "AUDIT_BOOTSTRAP_KEY": key},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield _wait_until_listening(process, data_dir)
    finally:
        # An impatient second Ctrl-C must not leave a database running.
        with _signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN):
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()  # all that it started dies with it
                process.wait()


def _said(data_dir: Path) -> list[str]:
    """The whole lines `serve` has written so far."""
    return (data_dir / _LOG_NAME).read_text("utf-8", "replace").split("\n")[:-1]


def _wait_until_listening(process: "subprocess.Popen[bytes]", data_dir: Path) -> str:
    """The URL `serve` announces; its lines are shown on the way. From then on a client waits instead of being refused."""
    progress = Console(stderr=True, highlight=False)
    deadline = time.monotonic() + _START_SECONDS
    shown = 0
    with progress.status("starting the service"):
        while True:
            ended = process.poll() is not None  # read before its lines, so that none is missed
            for line in _said(data_dir)[shown:]:
                if _LISTENING in line:
                    return line.partition(_LISTENING)[2]
                progress.print(line, style="dim", markup=False, soft_wrap=True)
                shown += 1
            if ended or time.monotonic() > deadline:
                raise StoryError("the service did not start")
            time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _signals(numbers: Sequence[int], handler: Callable[[int, object], NoReturn] | signal.Handlers) -> Iterator[None]:
    """`handler` for these signals, and what was before afterwards."""
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, previous in zip(numbers, before, strict=True):
            signal.signal(number, previous)


def _leave(out: Console, data_dir: Path, key: str, *, keep: bool) -> None:
    if not keep:
        shutil.rmtree(data_dir, ignore_errors=True)
        return
    _line(out, "\nThe instance is kept, with the tampered row. To look around in it, and to verify it again:", "bold")
    program = shlex.quote(str(Path(sys.executable).with_name("audit-service")))
    settings = f"export AUDIT_DATA_DIR={shlex.quote(str(data_dir))} AUDIT_BOOTSTRAP_KEY={key}"
    out.print(f"   {settings}\n   {program} serve\n   {program} verify", markup=False, soft_wrap=True)


# -- 2. post -------------------------------------------------------------------------------------------------


def _post(out: Console, client: httpx.Client, day: sample.Day) -> int:
    """Post the day; returns the number of entries it made."""
    first: dict[JSONValue, JSONObject] = {}
    shapes: dict[str, Counter[str]] = {panel: Counter() for panel in sample.PANELS}
    for delivery in day.deliveries:
        response = client.post("/v1/events", content=delivery.body, headers=delivery.headers)
        for event, receipt in zip(delivery.events, receipts_of(delivery, response), strict=True):
            again = first.setdefault(event["id"], receipt)
            _check(again == receipt, f"a retry of {event['id']} got another receipt")
        shapes[delivery.panel][delivery.shape] += 1
    events = Counter(event.partition(":")[0] for event in map(str, first))
    kept = sum(bool(receipt["kept"]) for receipt in first.values())
    _line(
        out,
        f"\n1  A day of five panels: {len(first)} events through POST /v1/events, {kept} entries in the chain",
        "bold",
    )
    for panel, sent in shapes.items():
        how = ", ".join(f"{number} × {_SHAPES[shape]}" for shape, number in sent.items())
        _line(out, f"   {panel:<8} {events[panel]:>3} events: {how}")
    fates = {delivery.fate: delivery.events[0]["id"] for delivery in day.deliveries}
    _line(out, f"   {fates['replayed']} was sent twice: the retry got the first receipt, and Idempotent-Replayed: true")
    _line(out, f"   {fates['not kept']} changes nothing but updated_at: answered kept: false, not in the chain")
    return kept


def receipts_of(delivery: sample.Delivery, response: httpx.Response) -> list[JSONObject]:
    """The receipt of each event of a delivery, in order. Raises StoryError unless all of them met their fate."""
    where = f"{delivery.events[0]['id']} ({delivery.shape})"
    fresh = 201 if delivery.fate == "kept" else 200
    wanted = 200 if delivery.shape == "ndjson" else fresh
    _check(response.status_code == wanted, f"{where} was answered {response.status_code}: {response.text[:300]}")
    lines = [orjson.loads(line) for line in response.text.splitlines()]
    if delivery.shape == "single":
        replayed = response.headers.get("Idempotent-Replayed") == "true"
        _check(replayed == (delivery.fate == "replayed"), f"{where} was replayed, or was not, against the story")
        receipts = lines
    else:
        results = lines[:-1] if delivery.shape == "ndjson" else lines[0]["results"]
        _check(all(result["status"] == 201 for result in results), f"an event of {where} was refused")
        receipts = [result["receipt"] for result in results]
    kept = [receipt["kept"] == (delivery.fate != "not kept") for receipt in receipts]
    _check(all(kept) and len(kept) == len(delivery.events), f"{where} was kept, or was not, against the story")
    return receipts


# -- 3. ask --------------------------------------------------------------------------------------------------


class _Question(NamedTuple):
    """What somebody asks, the call that answers it, how an answer reads, and what it must say."""

    asked: str
    path: str
    query: Mapping[str, str | Sequence[str]]
    tell: Callable[[list[JSONObject]], list[str]]
    expected: tuple[str, ...]


def _ask(out: Console, client: httpx.Client) -> None:
    _line(out, "\n2  What people ask, and the call that answers it (all times UTC)", "bold")
    for question in _QUESTIONS:
        answer = question.tell(_events(client, question.path, question.query))
        missing = [text for text in question.expected if text not in "\n".join(answer)]
        _check(not missing, f"the answer to {question.asked!r} lacks {missing}")
        _line(out, f"   {question.asked}", "bold")
        _line(out, f"   GET {question.path}?{urlencode(question.query, doseq=True, safe='@:*')}", "cyan")
        for line in answer:
            _line(out, f"      {line}")


def _events(client: httpx.Client, path: str, query: Mapping[str, str | Sequence[str]]) -> list[JSONObject]:
    """The events a query finds, oldest first (they come newest first)."""
    return cast("list[JSONObject]", _get(client, path, query)["events"])[::-1]


def _get(client: httpx.Client, path: str, query: Mapping[str, str | Sequence[str]] | None = None) -> JSONObject:
    response = client.get(path, params=cast("dict[str, Any] | None", query))
    _check(response.status_code == 200, f"GET {path} was answered {response.status_code}: {response.text[:300]}")
    return cast("JSONObject", response.json())


def _each(what: Callable[[JSONObject], str]) -> Callable[[list[JSONObject]], list[str]]:
    """Tells each event on a line: when, who, from where, and `what`."""
    return lambda events: [f"{_clock(event)}  {_who(event)}: {what(event)}" for event in events]


def _clock(event: JSONObject) -> str:
    return str(event["occurred_at"])[11:19]


def _who(event: JSONObject) -> str:
    actor, behalf, context = (cast("JSONObject", event[name] or {}) for name in ("actor", "on_behalf_of", "context"))
    whose = f" on behalf of {behalf['name']}" if behalf else ""
    return f"{actor['name']} ({actor['role']}){whose} from {context['ip']}"


def _changed(event: JSONObject) -> str:
    changes = cast("list[JSONObject]", event["changes"])
    return ", ".join(f"{change['path']} {change['old']} → {change['new']}" for change in changes)


def _outcome(event: JSONObject) -> str:
    return ": ".join(str(event[member]) for member in ("outcome", "reason") if event[member])


def _actions(events: list[JSONObject]) -> list[str]:
    """Every action with how often, in the order of their first time."""
    counts = Counter(f"{event['action']}{' (failed)' if event['outcome'] == 'failure' else ''}" for event in events)
    told = ", ".join(f"{number}×{action}" for action, number in counts.items())
    return [f"{_clock(events[0])} to {_clock(events[-1])}  {told}"]


def _money(events: list[JSONObject]) -> list[str]:
    """The actions, and what they moved."""
    rows = [cast("JSONObject", event["metadata"]) for event in events if event["category"] == "balance"]
    moved = [Decimal(str(row["amount"])) for row in rows]
    return [*_actions(events), f"balances  {' '.join(f'{amount:+}' for amount in moved)} = {sum(moved):+} EUR"]


_QUESTIONS = (
    _Question("Who edited the retention of the schedule `nightly shop-db`?", "/v1/events",
              {"target_type": "schedule", "target_id": sample.SCHEDULE_ID, "verb": "UPDATE"}, _each(_changed),
              ("03:07:41", sample.INTRUDER.ip, "/retention_days 30 → 7", sample.ANA.name, "/retention_days 7 → 30")),
    _Question("At 3 a.m., from an address nobody knows? What else came from there?", "/v1/events",
              {"ip": sample.INTRUDER.ip}, _actions,
              ("3×auth.login (failed), 1×auth.login, 1×schedule.updated, 1×auth.logout",)),
    _Question("Was a restore of shop-db started?", f"/v1/servers/{sample.SHOP_DB}/activity",
              {"verb": "RESTORE"}, _each(_outcome),
              ("failure: the schedule keeps only 7 days", sample.ANA.name, "success")),
    _Question("Who deleted the server old-forum, and from which IP?", "/v1/events",
              {"action": "server.deleted", "target_id": sample.OLD_FORUM}, _each(lambda event: str(event["action"])),
              (sample.PRIYA.name, f"on behalf of {sample.LENA.name}", sample.PRIYA.ip)),
    _Question("What did Tom do with keys and balances?", "/v1/events",
              {"actor": sample.TOM.email, "category": ("key", "balance")}, _money,
              ("8×key.generated", "1×key.banned", "-96.00 +12.00 +500.00 = +416.00 EUR")),
)  # fmt: skip


# -- 4. search for secrets -----------------------------------------------------------------------------------


def _search(out: Console, client: httpx.Client, data_dir: Path, day: sample.Day) -> None:
    """Look for each secret in every table and file; the same search must find what is no secret."""
    known = sample.SCHEDULE_NAME
    wanted = [known, *day.secrets]
    tables, in_rows = _as_owner(data_dir, lambda owner: _count_in_tables(owner, wanted))
    megabytes, in_files = _count_in_files(data_dir, wanted)
    leaked = sum(in_files[secret] + in_rows[secret] for secret in day.secrets)
    _check(leaked == 0, f"a secret was found in {leaked} places")
    _check(in_files[known] > 0 and in_rows[known] > 0, "the search for secrets finds nothing at all")
    (event,) = _events(client, "/v1/events", {"action": "server:database.rotate-password"})
    _check("/password changed (value withheld)" in str(event["summary"]), "the change of a secret is not told")
    _line(out, f"\n3  {len(day.secrets)} passwords, hashes, tokens and session ids were sent", "bold")
    _line(out, f"   Found in {tables} tables: 0. In {megabytes} MB of files, write-ahead log and logs included: 0.")
    _line(out, f"   The same search finds the name `{known}` in {in_rows[known]} rows and {in_files[known]} files.")
    _line(out, f"   What stays: {event['summary']}")


def _count_in_files(folder: Path, wanted: Sequence[str]) -> tuple[int, Counter[str]]:
    """Size in MB, and for each text the number of files that hold it."""
    found, size = Counter[str](), 0
    for path in folder.rglob("*"):
        if path.is_file():
            with contextlib.suppress(FileNotFoundError):  # the server may remove one meanwhile
                data = path.read_bytes()
                size += len(data)
                found.update(text for text in wanted if text.encode() in data)
    return round(size / 1_000_000), found


_FIND = """
    SELECT wanted, count(*) FROM unnest($1::text[]) AS wanted JOIN {table} AS t
    ON strpos(t::text, wanted) > 0 OR strpos(t::text, encode(convert_to(wanted, 'UTF8'), 'hex')) > 0 GROUP BY wanted
"""


async def _count_in_tables(owner: asyncpg.Connection, wanted: Sequence[str]) -> tuple[int, Counter[str]]:
    """Number of tables, and for each text the number of rows that hold it, as text or inside a binary column."""
    found = Counter[str]()
    await owner.execute("CHECKPOINT")  # everything into the files, which are searched next
    tables = await owner.fetch(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables "
        "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    for table in tables:
        rows = await owner.fetch(_FIND.replace("{table}", table["name"]), wanted)  # a name the server has quoted
        found.update({row["wanted"]: row["count"] for row in rows})
    return len(tables), found


# -- 5 to 7. verify, tamper, verify --------------------------------------------------------------------------


def _verify_intact(out: Console, client: httpx.Client, size: int) -> JSONObject:
    report = _get(client, "/v1/chain/verify")
    _check(report["status"] == "ok" and report["breaks_total"] == 0, f"the log does not verify: {report['breaks']}")
    checked = cast("dict[str, int]", report["checked"])
    _check(checked["count"] == checked["to_seq"] >= size, f"{size} entries are not all checked")  # some may be its own
    _line(out, "\n4  GET /v1/chain/verify", "bold")
    _line(out, f"   ok: {checked['count']} entries, 0 breaks; origin {report['origin']}", "bold green")
    _line(out, f"   head {report['head']}")
    _line(out, f"   root {report['root']}")
    return _get(client, "/v1/chain")  # with the entry that the verification left


def _tamper(out: Console, client: httpx.Client, data_dir: Path) -> int:
    """Rewrite the 3 a.m. change as the owner of the tables. Returns its seq."""
    before = _night_change(client)
    seq = cast("int", before["seq"])
    refusals = _as_owner(data_dir, lambda owner: _refused(owner, seq))
    _as_owner(data_dir, lambda owner: _rewrite(owner, seq))
    after = _night_change(client)
    _check(_changed(after) == "/retention_days 30 → 60", "the tampered row does not show its new values")
    _line(out, f"\n5  Somebody with the rights of the database owner covers up the 3 a.m. change, seq {seq}", "bold")
    _line(out, f"   an UPDATE as the role of the service: {refusals[0]}")
    _line(out, f"   an UPDATE as the owner: {refusals[1]}")
    forged = f"SET actor_name = '{sample.ANA.name}', d_changes = '… 30 → 60 …' WHERE seq = {seq}"
    for statement in (_DISABLE, f"UPDATE audit.entry {forged}", _ENABLE):
        _line(out, f"   {statement};", "yellow")
    _line(out, f"   A reader now sees {_changed(after)} where {_changed(before)} stood.")
    return seq


def _night_change(client: httpx.Client) -> JSONObject:
    found = _events(client, "/v1/events", {"ip": sample.INTRUDER.ip, "target_id": sample.SCHEDULE_ID})
    _check(len(found) == 1, f"the 3 a.m. change is there {len(found)} times")
    return found[0]


async def _refused(owner: asyncpg.Connection, seq: int) -> list[str]:
    """What an UPDATE is answered under the serving role, and under the owner while the trigger stands."""
    refusals = []
    for role in ("audit_serving", "audit_owner"):
        await owner.execute(f"SET ROLE {role}")
        try:
            await owner.execute("UPDATE audit.entry SET actor_name = $1 WHERE seq = $2", sample.ANA.name, seq)
        except asyncpg.InsufficientPrivilegeError as error:
            refusals.append(str(error))
        else:
            raise StoryError(f"{role} may update an entry")
    return refusals


async def _rewrite(owner: asyncpg.Connection, seq: int) -> None:
    """Change who and what in one row, in a transaction that puts the trigger back."""
    row = await owner.fetchrow("SELECT d_changes FROM audit.entry WHERE seq = $1", seq)
    if row is None or row["d_changes"] is None:
        raise StoryError(f"seq {seq} has no changes")
    stored = cast("bytes", row["d_changes"])
    (change,) = cast("list[JSONObject]", disclosed(stored))
    forged = stored[:SALT_BYTES] + canonical_text([change | {"new": 60}]).encode()
    await owner.execute("SET ROLE audit_owner")
    async with owner.transaction():
        await owner.execute(_DISABLE)
        await owner.execute(_UPDATE, sample.ANA.name, forged, seq)
        await owner.execute(_ENABLE)


def _verify_broken(out: Console, client: httpx.Client, intact: JSONObject, seq: int) -> None:
    report = _get(client, "/v1/chain/verify")
    breaks = cast("list[JSONObject]", report["breaks"])
    named = [(item["kind"], _column(item)) for item in breaks]
    _check(report["status"] == "broken", "the tampered log verifies")
    _check({item["seq"] for item in breaks} == {seq}, f"the report names other entries than seq {seq}: {breaks}")
    rewritten = {("disclosure_mismatch", "d_changes"), ("projection_mismatch", "actor_name")}
    _check(rewritten <= set(named), f"the report names only {named}")
    _check(report["head"] == intact["head"], "the head has changed")
    _line(out, "\n6  GET /v1/chain/verify", "bold")
    _line(
        out, f"   broken: {report['breaks_total']} breaks, all at seq {seq}; the head as before the UPDATE", "bold red"
    )
    for kind in dict.fromkeys(kind for kind, _ in named):
        columns = ", ".join(column for of, column in named if of == kind)
        _line(out, f"   seq {seq}  {kind}: {columns}", "red")
    _line(out, "   (d_changes and actor_name were rewritten; the others are query columns made from the changes)")
    _line(out, "\n7  What verify alone cannot see", "bold")
    _line(out, f"   {_LIMITS}")
    _line(out, f"\nThe story went as told: ok before, broken at seq {seq} after.", "bold green")


def _column(item: JSONObject) -> str:
    """The column of a break. Of a disclosure the report has the group and the commitment."""
    if item["kind"] == "disclosure_mismatch":
        return f"d_{str(item['expected']).partition(':')[0]}"
    return str(item["found"])


def _as_owner(data_dir: Path, work: Callable[[asyncpg.Connection], Coroutine[Any, Any, _T]]) -> _T:
    """Run `work` on a connection of the database's superuser, past the service."""

    async def connected() -> _T:
        owner = await asyncpg.connect(EmbeddedPostgres.attach(data_dir).url())
        try:
            return await work(owner)
        finally:
            await owner.close()

    return asyncio.run(connected())


def _line(out: Console, text: str, style: str | None = None) -> None:
    """A line as it is (what an event says is never markup), wrapped below its own beginning."""
    body = text.lstrip()
    indent = text[: -len(body)].lstrip("\n")
    wrapped = textwrap.fill(body, out.width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    out.print("\n" * text.count("\n") + wrapped, style=style, markup=False, emoji=False, soft_wrap=True)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise StoryError(otherwise)
