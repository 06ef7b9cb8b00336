"""Where does the time of an event go? Each step of `ingest.seal` by itself, the append call, and what is left for HTTP.

The steps run in this process, one after the other over the same sample; the append call at 1, 32 and 500 events a call. What a request
takes beyond them is HTTP: sockets, framework, key, log line and answer, and the client's own part. Shares are of one request over one
connection, where nothing waits for anything else but the disk.
"""

import os
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from hashlib import sha256
from typing import TypeVar, cast

from audit_service.api.dependencies import Service
from audit_service.core import diff, entry, redaction
from audit_service.core.canonical import JSONValue, canonical_bytes
from audit_service.core.entry import JSONObject
from audit_service.core.event import check_limits, parse_json, validate
from audit_service.ingest import (
    FINGERPRINT_SALT_BYTES,
    Log,
    Recipe,
    Sealed,
    find_changes,
    hash_session,
    new_id,
    seal,
    with_defaults,
)
from audit_service.store.append import append_entries
from benchmarks.events import batch_bytes, event_bytes
from benchmarks.load import send_batches
from benchmarks.options import Options
from benchmarks.report import Figure, Section
from benchmarks.service import Running, running
from benchmarks.single import POOL_EVENTS, post_load

APPEND_BATCHES = (1, 32, 500)
APPENDS_PER_BATCH = 40
BATCH_EVENTS = 500

Item = TypeVar("Item")
Made = TypeVar("Made")
Times = dict[str, float]


def measure_steps(options: Options) -> Section:
    """Microseconds of each step and shares of a request."""
    with running(options.folder) as service:
        steps, whole = service.work(lambda parts, log: _seal_steps(parts, log, options.sample_events))
        appends = service.work(lambda parts, log: _append_times(parts, log, options.sample_events))
        single = _single_microseconds(options, service)
        batched = _batch_microseconds(options, service)
    return Section(
        "steps",
        "Where the time goes: µs an event",
        [
            *_shares("single POST, 1 connection", single, steps, appends[1]),
            *_shares(f"batch of {BATCH_EVENTS}, 1 connection", batched, steps, appends[BATCH_EVENTS]),
            Figure("ingest.seal in one go (the steps but parse)", whole, "µs"),
            *(Figure(f"append call of {size}, for each event", found, "µs") for size, found in appends.items()),
        ],
        [
            (
                "`HTTP` is what is left of the request after the steps and the append call: server, framework, credentials, access log and "
                "answer, and the client. One tenant, 1 worker; the steps are means over a sample, timed outside the worker."
            ),
        ],
    )


def _shares(name: str, request: float, steps: Times, append: float) -> list[Figure]:
    parts = steps | {"append (PostgreSQL)": append}
    parts["HTTP"] = request - sum(parts.values())
    return [
        Figure(f"{name}: whole request", request, "µs"),
        *(Figure(f"{name}: {part}", found, "µs", share=found / request) for part, found in parts.items()),
    ]


async def _seal_steps(service: Service, log: Log, count: int) -> tuple[Times, float]:
    """Microseconds of each step for one event, and of all of them in one go."""
    recipe, now = await service.recipe(), datetime.now(UTC)
    sample = [event_bytes(number, "steps") for number in range(count)]
    for data in sample:  # to warm up the memory of names
        seal(recipe, log, parse_json(data), None, now)
    times: Times = {}

    def timed(name: str, step: Callable[[Item], Made], items: Sequence[Item]) -> list[Made]:
        began = time.perf_counter()
        made = [step(item) for item in items]
        times[name] = (time.perf_counter() - began) / len(items) * 1e6
        return made

    values = timed("parse", parse_json, sample)
    whole_values = deepcopy(values)
    timed("limits", lambda value: check_limits(value, recipe.limits), values)
    events = timed("validate", lambda value: validate(value, now=now, limits=recipe.limits), values)
    times["validate"] -= times["limits"]  # it checks them first
    changes = [found for found, _ in timed("diff", lambda event: find_changes(event, recipe), events)]
    redacted = timed(
        "redact", lambda pair: _redact(pair[0], pair[1], recipe, log), list(zip(events, changes, strict=True))
    )
    timed(
        "fingerprint",
        lambda pair: sha256(os.urandom(FINGERPRINT_SALT_BYTES) + canonical_bytes(pair[0])).digest(),
        redacted,
    )
    timed("body, disclosures, projection", lambda pair: _prepare(pair[0], pair[1], now), redacted)
    timed("whole", lambda value: seal(recipe, log, value, None, now), whole_values)
    return times, times.pop("whole")


def _redact(
    event: JSONObject, changes: list[JSONObject], recipe: Recipe, log: Log
) -> tuple[JSONObject, list[JSONObject]]:
    context = event.get("context")
    if isinstance(context, dict) and isinstance(context.get("session_id"), str):
        context["session_id"] = hash_session(cast("str", context["session_id"]), recipe.secret, log.log_id)
    return redaction.redact_event(event, changes, recipe.rules)


def _prepare(event: JSONObject, changes: list[JSONObject], now: datetime) -> entry.Prepared:
    whole = with_defaults(event, str(event.get("id") or new_id()), now)
    return entry.prepare(whole, changes, diff.top_fields(changes), os.urandom(entry.ENTROPY_BYTES))


async def _append_times(service: Service, log: Log, sample: int) -> dict[int, float]:
    """Microseconds of the append call for each event, by the events in a call. The first calls of each size warm up."""
    recipe, found = await service.recipe(), {}
    for size in APPEND_BATCHES:
        calls = max(min(APPENDS_PER_BATCH, sample // size), 2)
        made = _sealed(recipe, log, size * calls, f"append-{size}")
        began = 0.0
        for call in range(calls):
            if call == calls // 4:
                began = time.perf_counter()
            part = made[call * size : (call + 1) * size]
            await append_entries(
                service.database.writes, log.log_id, recipe.rules.digest, [one.candidate for one in part]
            )
        found[size] = (time.perf_counter() - began) / (size * (calls - calls // 4)) * 1e6
    return found


def _sealed(recipe: Recipe, log: Log, count: int, prefix: str) -> list[Sealed]:
    now = datetime.now(UTC)
    return [seal(recipe, log, _value(number, prefix), None, now) for number in range(count)]


def _value(number: int, prefix: str) -> JSONValue:
    return parse_json(event_bytes(number, prefix))


def _single_microseconds(options: Options, service: Running) -> float:
    bodies = [event_bytes(number) for number in range(POOL_EVENTS)]
    post_load(options, service, [service.key], bodies, 1, 1)
    return post_load(options, service, [service.key], bodies, 1, options.seconds).mean_ms * 1000


def _batch_microseconds(options: Options, service: Running) -> float:
    count = max(options.sample_events * 2 // BATCH_EVENTS, 2)
    batches = [(service.key, batch_bytes(number * BATCH_EVENTS, BATCH_EVENTS, "shares")) for number in range(count)]
    return send_batches(service.url, batches, events=BATCH_EVENTS, connections=1) / (count * BATCH_EVENTS) * 1e6
