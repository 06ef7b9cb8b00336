"""A raw-byte fuzzer: valid requests of every kind, mutated in their bytes, their headers and the structure of their bodies.

Every request gets a connection of its own, against a service that cuts slow clients after a second, so whatever was cut or promises more
than it brings is answered 408. A request without any answer after HANG_SECONDS is a hang. The same seed makes the same requests.
"""

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote

from tests.support.adapters import NAMES, sample
from tests.support.postgres import BOOTSTRAP_KEY
from tests.support.raw_http import connected, request

HANG_SECONDS = 10.0
CONNECTIONS = 64
_RAW = "@raw@"

EVENT: dict[str, Any] = {
    "id": "fuzz-1", "occurred_at": "2026-11-22T10:15:00.123456+01:00", "action": "schedule.updated", "verb": "UPDATE",
    "category": "schedules",
    "actor": {"type": "user", "id": "u12", "name": "Ana Gómez", "email": "ana@example.com", "role": "Admin"},
    "target": {"type": "schedule", "id": "77", "name": "nightly"}, "related": [{"type": "backup", "id": 5512}], "server_id": "s9",
    "outcome": "success", "reason": None, "context": {"ip": "203.0.113.9", "user_agent": "x", "session_id": "s", "request_id": "r"},
    "before": {"retention": {"days": 7}, "list": [1, 2.5, "x"]}, "after": {"retention": {"days": 14}, "list": []}, "partial": "none",
    "metadata": {"amount": "12.50", "deep": {"a": [{"b": None}]}}, "source": {"id": "panel-7", "seq": 1029},
}  # fmt: skip
CHANGES: dict[str, Any] = {"action": "x", "changes": [{"path": "/a", "op": "replace", "old": 1, "new": 2}]}
CLOUD: dict[str, Any] = {
    "specversion": "1.0",
    "id": "c1",
    "source": "/panel",
    "type": "server.created",
    "data": EVENT["metadata"],
}

NASTY: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 2**64, -(2**63) - 1, 10**400, 1.5, 1e308, "", "\0", "\ud800", "\ufffe", "\u202e", "x" * 300,
    "x" * 70_000, "infinity", "now",
    "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "2026-11-22T10:15:60Z", "1e5", "::ffff:1.2.3.4", "fe80::1%eth0",
    "' OR 1=1 --", "%s%n{0}",
    "/", "/~2", "~", "audit.x", [], {}, [[]], {"": ""}, {"\0": 1}, {"events": []}, ["x"] * 6_000, {"password": {"a": "b"}},
    "=cmd|'/C calc'!A0",
)  # fmt: skip
RAW_VALUES = (
    b"NaN", b"-Infinity", b"1e400", b"1" * 5_000, b"1e131071", b"-0.0", b'"\\ud800"', b'"\xed\xa0\x80"', b'"\xc0\xaf"',
    b"[" * 900 + b"]" * 900,
    b'{"a":' * 150 + b"1" + b"}" * 150, b'{"a":1,"a":2}', b"01", b"'x'", b'"\\x00"', b'"\n"', b"[1,]", b"", b"{}{}", b"\xef\xbb\xbf1",
    b"/**/1", b"tru",
)  # fmt: skip
QUERY = (
    "actor=ana*", "action=schedule.*", "verb=UPDATE", "server_id=none", "ip=203.0.113.0/24", "ip=::/0", "outcome=success", "id=fuzz-1",
    "session=s",
    "since=2026-01-01T00:00:00Z", "until=2027-01-01T00:00:00%2B01:00", "date_from=2026-11-01", "date_to=2026-11-30",
    "tz=Europe/Berlin", "sort=seq",
    "limit=3", "count=capped", "cursor=abc", "target_id=77", "actor.not=x", "from_seq=0", "to_seq=2", "format=csv", "request_id=r",
    "q=nightly",
)  # fmt: skip
NASTY_QUERY = (
    "", "\0", "%", "_", "\\", "*", "**", "' OR 1=1 --", "-1", "1e26", "1_0", " 10", "9" * 30, "0x10", "\u0661", "\u202e", "x" * 600,
    "infinity", "0001-01-01",
    "9999-12-31", "2026-02-30", "2026-11-22T10:15:60Z", "../../etc/passwd", "/etc/localtime", "Europe", "0.0.0.0/33", "::ffff:0:0/95",
    "fe80::1%eth0",
)  # fmt: skip
HEADER_LINES = (
    b"Content-Type: application/x-ndjson", b"Content-Type: application/cloudevents+json", b"Content-Type: text/plain; charset=utf-16",
    b"Content-Type: ;;=", b"Content-Encoding: gzip", b"Content-Encoding: br", b"Transfer-Encoding: chunked", b"Content-Length: 5",
    b"Content-Length: -1",
    b"Host: [", b"Host:", b"Expect: 100-continue", b"Connection: close", b"Connection: Upgrade\r\nUpgrade: h2c",
    b"Authorization: Basic !!!",
    b"Authorization: Bearer \xff", b"Idempotency-Key: \"a\"", b"Idempotency-Key: \xc3\xa9",
    b"ce-specversion: 1.0\r\nce-type: a\r\nce-source: b\r\nce-id: %00",
    b"X-Forwarded-For: \x01", b"Accept: */*;q=x", b"X: " + b"y" * 20_000, b"X:y\r\n z", b": x", b"If-None-Match: *",
    b"Range: bytes=0-", b"Cookie: \x80=;;",
)  # fmt: skip
CLOSE = b"Connection: close"


@dataclass(slots=True)
class Findings:
    """What a run has seen."""

    seed: int
    statuses: Counter[int | None] = field(default_factory=Counter)
    errors: list[tuple[int, bytes]] = field(default_factory=list)
    hangs: list[tuple[int, bytes]] = field(default_factory=list)

    def assert_none(self) -> None:
        """No answer of 5xx and no hang; prints what makes the run again."""
        shown = [(number, data[:600]) for number, data in (*self.errors[:3], *self.hangs[:3])]
        found = f"seed {self.seed}: {len(self.errors)} answers of 5xx, {len(self.hangs)} hangs: {shown}"
        assert not self.errors, found
        assert not self.hangs, found


async def fuzz(port: int, seed: int, start: int, end: int) -> Findings:
    """Send the requests [start, end) of this seed."""
    findings = Findings(seed)
    numbers = iter(range(start, end))

    async def sender() -> None:
        for number in numbers:
            data = make_request(seed, number)
            try:
                status = await _status(port, data)
            except TimeoutError:
                findings.hangs.append((number, data))
                continue
            findings.statuses[status] += 1
            if status is not None and status >= 500:
                findings.errors.append((number, data))

    await asyncio.gather(*(sender() for _ in range(CONNECTIONS)))
    return findings


async def _status(port: int, data: bytes) -> int | None:
    """The status of the first final answer, or None when the server just closes."""
    async with connected(port) as connection, asyncio.timeout(HANG_SECONDS):
        await connection.send(data)
        try:
            while True:
                head = await connection.reader.readuntil(b"\r\n\r\n")
                status = int(head.split(b" ", 2)[1])
                if status != 100:
                    return status
        except (asyncio.IncompleteReadError, ConnectionError):
            return None


def make_request(seed: int, number: int) -> bytes:
    """The bytes of one request."""
    random = Random(f"{seed} {number}")  # noqa: S311 - load, no secret
    data = random.choices(_MAKERS, _WEIGHTS)[0](random)
    while random.random() < 0.4:
        data = random.choice(_MUTATIONS)(random, data)
    return data


# --- valid requests, and such with nasty values in their right places ---


def _events(random: Random) -> bytes:
    event = _tampered(random, random.choice((EVENT | {"id": f"fuzz-{random.randrange(10**6)}"}, CHANGES, EVENT)))
    shape = random.randrange(6)
    headers = [CLOSE]
    if shape == 0:
        body = _dumps(random, [event, EVENT])
    elif shape == 1:
        body = _dumps(random, {"events": [EVENT, event, CHANGES]})
    elif shape == 2:
        headers.append(b"Content-Type: application/x-ndjson")
        body = b"\n".join((_dumps(random, event), _dumps(random, EVENT), b"", _dumps(random, event)))
    elif shape == 3:
        headers.append(b"Content-Type: application/cloudevents+json")
        body = _dumps(random, _tampered(random, CLOUD | {"data": event}))
    else:
        body = _dumps(random, event)
    if random.random() < 0.15:
        headers.append(b"Content-Encoding: gzip")
        body = gzip.compress(body, mtime=0)
    if random.random() < 0.15:
        size = random.randint(1, 500)
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        return request("POST", "/v1/events", headers=headers, framing=b"Transfer-Encoding: chunked") + chunked
    return request("POST", "/v1/events", body, headers=headers)


def _delivery(random: Random) -> bytes:
    chosen = sample(random.choice(NAMES))
    try:
        body = _dumps(random, _tampered(random, json.loads(chosen.body)))
    except ValueError:
        body = chosen.body
    scheme = b"Splunk " if "collector" in chosen.path else b"Bearer "
    headers = [CLOSE, *(f"{name}: {value}".encode() for name, value in chosen.headers.items())]
    return request("POST", chosen.path, body, headers=headers).replace(b": Bearer ", b": " + scheme, 1)


def _key(random: Random) -> bytes:
    wanted = {"name": "fuzz", "scopes": ["read"], "expires_at": "2030-01-01T00:00:00Z"}
    return request("POST", "/v1/keys", _dumps(random, _tampered(random, wanted)), headers=[CLOSE])


def _read(random: Random) -> bytes:
    path = random.choice(
        (
            "/v1/events", "/v1/events", "/v1/events/fuzz-1", "/v1/servers/s9/activity", "/v1/chain", "/v1/keys",
            "/v1/chain/verify?to_seq=3",
            "/v1/export?id=fuzz-1", "/healthz", "/readyz", "/metrics", "/openapi.json", "/services/collector/health",
            f"/v1/events/{_nasty_text(random)}",
            f"/v1/servers/{_nasty_text(random)}/activity",
            f"/v1/events/{_nasty_text(random)}/revert",
            f"/v1/targets/{_nasty_text(random)}/{_nasty_text(random)}/history",
        )
    )  # fmt: skip
    parts = [_parameter(random) for _ in range(random.randrange(4))]
    joint = "&" if "?" in path else "?"
    return request(
        random.choice(("GET",) * 12 + ("HEAD", "DELETE", "OPTIONS")),
        path + joint + "&".join(parts),
        headers=[CLOSE],
    )


def _parameter(random: Random) -> str:
    chosen = random.choice(QUERY)
    return f"{chosen.partition('=')[0]}={_nasty_text(random)}" if random.random() < 0.5 else chosen


def _nasty_text(random: Random) -> str:
    return (
        quote(random.choice(NASTY_QUERY), safe="")
        if random.random() < 0.8
        else random.choice(("%ff", "%ed%a0%80", "%", "%zz", "+", "%00"))
    )


_MAKERS: tuple[Callable[[Random], bytes], ...] = (_events, _read, _delivery, _key)
_WEIGHTS = (8, 6, 4, 1)


def _tampered(random: Random, value: Any) -> Any:
    """A copy with up to three places changed, most often none or one."""
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        value = _with_change(random, value)
    return value


def _with_change(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.9:
        name = random.choice(list(value))
        if random.random() < 0.1:
            other = random.choice([text for text in NASTY if isinstance(text, str)])
            return {(other if key == name else key): part for key, part in value.items()}
        return value | {name: _with_change(random, value[name])}
    if isinstance(value, list) and value and random.random() < 0.8:
        at = random.randrange(len(value))
        return [*value[:at], _with_change(random, value[at]), *value[at + 1 :]]
    return _RAW if random.random() < 0.4 else random.choice(NASTY)


def _dumps(random: Random, value: Any) -> bytes:
    """JSON in ASCII, lone surrogates and all, and with bytes that are none in the places marked for them."""
    data = json.dumps(value).encode()
    return data.replace(b'"%s"' % _RAW.encode(), random.choice(RAW_VALUES))


# --- mutations of the bytes ---


def _flip(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(1, len(data) + 1)]


def _repeat(random: Random, data: bytes) -> bytes:
    start = random.randrange(len(data))
    end = min(len(data), start + random.choice((1, 8, 64, 1024)))
    return data[:end] + data[start:end] * random.choice((1, 2, 50)) + data[end:]


def _drop(random: Random, data: bytes) -> bytes:
    start = random.randrange(len(data))
    kept = data[:start] + data[start + random.choice((1, 2, 8, 64)) :]
    return kept or b"\n"


def _insert(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data))
    return (
        data[:at]
        + random.choice((b"\0", b"\r\n", b"\n", b"\xff", b"\xed\xa0\x80", b'"', b"{", b"%", *RAW_VALUES))
        + data[at:]
    )


def _add_header(random: Random, data: bytes) -> bytes:
    head, _, rest = data.partition(b"\r\n")
    return head + b"\r\n" + random.choice(HEADER_LINES) + b"\r\n" + rest


def _swap_headers(random: Random, data: bytes) -> bytes:
    head, end, body = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    lines = [line for line in lines if random.random() < 0.8] or lines
    random.shuffle(lines)
    return b"\r\n".join([first, *lines]) + end + body


def _pipeline(random: Random, data: bytes) -> bytes:
    return data.replace(b"Connection: close\r\n", b"") + random.choice((data, b"\0\0", request("GET", "/healthz")))


def _strip_key(random: Random, data: bytes) -> bytes:
    del random
    return data.replace(BOOTSTRAP_KEY.encode(), BOOTSTRAP_KEY[:-1].encode())


_MUTATIONS = (_flip, _cut, _repeat, _drop, _insert, _add_header, _add_header, _swap_headers, _pipeline, _strip_key)
