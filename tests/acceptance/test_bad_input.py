"""Every row of the catalogue of bad input: sent here to the real service byte for byte, or shown by the test that is named.

The rows and their numbers are those of the project's reference on bad input, section 3. Whatever a row says, its answer comes
within a second, is a problem document when it is a refusal, and repeats nothing of what was sent.
"""

import asyncio
import gzip
import importlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from audit_service.api.schemas import Problem
from tests.support.postgres import BOOTSTRAP_KEY
from tests.support.processes import start_service
from tests.support.raw_http import Answer, ask, request

CANARY = b"hunter2canary"
LIMIT_SECONDS = 1.0
# Large integers are typed out, not computed: the request is what matters.
TIMES = (
    "2026-11-22T10:15:00", "2026-11-22", "1700000000", "1700000000000", "20261122T101500Z", "2026-11-22 10:15", "",
)  # fmt: skip
NO_TIMES = (
    "2026-11-22T10:15:60Z", "2026-11-22T24:00:00Z", "10000-01-01T00:00:00Z", "-0001-01-01T00:00:00Z", "2026-11-22T10:15:00+25:00",
    "now", "tomorrow",
    "2026-02-30T00:00:00Z",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sent:
    """A request, the status it must get, and text that its answer must hold: the place, or the rule."""

    data: bytes
    status: int
    text: str = ""


def post(body: bytes, status: int, text: str = "", *headers: bytes) -> Sent:
    """A POST of these bytes."""
    return Sent(request("POST", "/v1/events", body, headers=[*headers, b"Connection: close"]), status, text)


def value(raw: bytes, status: int, text: str = '"/metadata/k"') -> Sent:
    """An event with these bytes as a value in its metadata, beside a value that must not come back."""
    return post(b'{"action":"x","reason":"%s","metadata":{"k":%s}}' % (CANARY, raw), status, text)


def member(name: str, sent: Any, status: int = 422, text: str | None = None) -> Sent:
    """An event with one more member."""
    body = json.dumps({"action": "x", "reason": CANARY.decode(), name: sent}).encode()
    return post(body, status, f'"/{name}"' if text is None else text)


def address(text: str, status: int) -> Sent:
    """An event from there."""
    return member("context", {"ip": text}, status, '"/context/ip"' if status == 422 else "")


def get(target: str | bytes, status: int, text: str = "") -> Sent:
    """A GET."""
    return Sent(request("GET", target, headers=[b"Connection: close"]), status, text)


def chunked(size: int) -> bytes:
    """A body without a length, of so many blanks."""
    piece = b"ffff\r\n" + b" " * 0xFFFF + b"\r\n"
    return piece * -(-size // 0xFFFF) + b"0\r\n\r\n"


LONG_ROW = {f"c{n}": n for n in range(10_000)}
TE = b"Transfer-Encoding: chunked"
LINK = b'{"action":"x"}'

# A row: what is sent here, and the tests elsewhere that show the rest of it ("folder.file:test").
ROWS: dict[int, tuple[Sent | str, ...]] = {
    1: (
        value(b'"a\\u0000b"', 422), value(b'{"a\\u0000b":1}', 422, "/metadata/k"),
        value(b'["x",{"y":"\\u0000"}]', 422, '"/metadata/k/1/y"'),
        value(b'"a\0b"', 400, "not well-formed"), member("id", "\0"), get("/v1/events?actor=%00", 400, '"actor"'),
        get("/v1/events/a%00b", 404),
        get("/v1/servers/a%00b/activity", 404), get("/v1/events?cursor=%00", 400, '"cursor"'),
    ),
    2: (
        value(b'"\\ud800"', 422), value(b'{"\\udc00":1}', 422, "lone surrogate"), value(b'"\\ud83d\\ud83d\\ude00"', 422),
        value(b'"\xed\xa0\x80"', 400, "JSON"),
        value(b'"\\ud83d\\ude00"', 201, ""), get("/v1/events?actor=%ed%a0%80", 400, '"actor"'),
        "api.test_ingest:test_nul_and_lone_surrogates_are_refused_with_their_place",
    ),
    3: tuple(value(b'"%s"' % raw, 400, "JSON") for raw in (b"\xff", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf4\x90\x80\x80", b"\xe2\x82")),
    4: (
        post(b"\xef\xbb\xbf" + LINK, 400, "byte order mark"), post(LINK.decode().encode("utf-16"), 400),
        post(LINK.decode().encode("utf-16-le"), 400),
        post(LINK, 415, "UTF-8", b"Content-Type: application/json; charset=utf-16"),
    ),
    5: (
        *(value(raw, 400, "JSON") for raw in (b"NaN", b"Infinity", b"-Infinity", b"[nan]")),
        *(value(raw, 422) for raw in (b"1e400", b"-1e400", b"1" + b"0" * 310 + b".0")),
    ),
    6: (
        *(value(raw, 422) for raw in (b"18446744073709551616", b"-9223372036854775809", b"123456789012345678901234567890")),
        *(value(raw, 201, "") for raw in (b"9007199254740993", b"18446744073709551615", b"-9223372036854775808")),
        "api.test_ingest:test_integers_of_64_bits_and_doubles_are_kept_exactly",
    ),
    7: (value(b"1" * 5_000, 422, "kept exactly"), value(b"-" + b"9" * 4_299, 422, "kept exactly"),
        value(b"1" * 100_000, 422, "kept exactly")),
    8: (value(b"1e131071", 422), value(b"1e131072", 422), value(b"1e99999999999999999999", 422)),
    9: (
        value(b'{"z":1e22,"a":-0.0,"m":1.00,"\\u00e9":4.6e16}', 201, ""), "core.test_canonical:test_published_pairs",
        "store.test_verify_clean:test_whatever_is_sent_verifies",
        "api.test_ingest:test_integers_of_64_bits_and_doubles_are_kept_exactly",
    ),
    10: (
        *(value(b"[" * n + b"]" * n, 422, "nested") for n in (31, 500, 900, 5_000, 200_000)), value(b"[" * 30 + b"]" * 30, 201, ""),
        "api.test_limits:test_no_depth_is_a_server_error",
    ),
    11: (
        post(b'{"action":"x","action":"y"}', 400, "twice"), value(b'{"a":1,"a":1}', 400, "twice"),
        value(b'{"a":1,"\\u0061":2}', 400, "twice"),
        post(b'[{"action":"x","id":"1","id":"2"}]', 400, "twice"),
        Sent(request("POST", "/v1/keys", b'{"name":"a","name":"b","scopes":["read"]}', headers=[b"Connection: close"]), 400, "twice"),
    ),
    12: (
        member("after", LONG_ROW, text='"pointer":""'), member("after", {f"c{n}": n for n in range(2_001)}, text="changes"),
        member("metadata", {"k" * 1_000_000: 1}, text='"/metadata"'), member("metadata", {"k": [0] * 100_000}, text="members"),
        member("metadata", {"k": "x" * 65_537}, text='"/metadata/k"'), member("related", [{"id": "1"}] * 101),
        member("reason", "x" * 16_385),
        member("changes", [{"path": f"/{n}", "new": n} for n in range(2_001)], text="members"),
        post(b'{"action":"%s"}' % (b"x" * 129), 422, '"/action"'),
        "api.test_limits:test_the_length_of_a_string_is_limited",
    ),
    13: (
        post(b"[" + b",".join([LINK] * 1_001) + b"]", 413, "1000 events"),
        post(b'{"events":[%s]}' % b",".join([LINK] * 40_000), 413, "1000 events"),
        "api.test_batches:test_a_whole_batch_of_the_largest_size_is_accepted",
        "adapters.test_otlp_record:test_a_request_may_hold_so_many_records_and_no_more",
    ),
    14: (*(member("occurred_at", text) for text in TIMES), member("occurred_at", 1_700_000_000), member("occurred_at", 1.7e9)),
    15: tuple(member("occurred_at", text) for text in NO_TIMES),
    16: (
        *(member("occurred_at", text) for text in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00",
          "1999-12-31T23:59:59Z", "2999-01-01T00:00:00Z")),
        get("/v1/events?since=0001-01-01T00:00:00%2B14:00", 400, '"since"'), get("/v1/events?date_to=9999-12-31", 400, '"date_to"'),
        "api.test_ingest:test_a_time_may_be_a_day_ahead_and_no_more",
    ),
    17: (
        member("occurred_at", "2026-11-22T10:15:00.123456789Z", 201, ""),
        "api.test_ingest:test_a_time_with_an_offset_is_kept_in_utc_cut_to_microseconds",
    ),
    18: (member("occurred_at", "infinity"), member("occurred_at", "-infinity"), get("/v1/events?since=infinity", 400, '"since"')),
    19: (address("fe80::1%eth0", 201), address("fe80::1%" + "x" * 60, 422),
        "core.test_entry:test_an_address_is_indexed_under_one_spelling"),
    20: (
        address("::ffff:1.2.3.4", 201), "core.test_entry:test_an_address_is_indexed_under_one_spelling",
        "acceptance.test_bad_input:test_a_mapped_address_is_found_both_ways"),
    21: tuple(address(text, 422) for text in ("010.0.0.1", "0x7f.1", "1.2", "1.2.3.4/32", "1.2.3.4:80", "[::1]", "localhost", "")),
    22: ("acceptance.test_bad_input:test_a_forwarded_address_is_nobodys",),
    23: (
        Sent(request("POST", "/v1/events", b" " * 5_000_000), 413, "4194304"),
        Sent(request("POST", "/v1/events", framing=b"Content-Length: 99999999999"), 413, "4194304"),
        Sent(request("POST", "/v1/events", framing=TE) + chunked(4_200_000), 413, "4194304"),
        Sent(request("POST", "/v1/events", framing=b"Content-Length: -1"), 400),
        "api.test_limits:test_the_body_is_limited_by_counted_bytes",
    ),
    24: (
        "acceptance.test_slow_clients:test_who_sends_too_slowly_is_told_and_cut",
        "acceptance.test_slow_clients:test_two_hundred_slow_clients_do_not_slow_an_honest_one",
        "acceptance.test_slow_clients:test_nobody_is_blamed_for_what_we_keep_waiting",
    ),
    25: (
        post(gzip.compress(b" " * 100_000_000), 413, "4194304", b"Content-Encoding: gzip"),
        post(LINK, 415, "identity", b"Content-Encoding: br"),
        "api.test_limits:test_gzip_is_inflated_under_the_same_limit",
    ),
    26: (
        Sent(request("POST", "/v1/events", LINK, headers=[TE]), 400),
        Sent(request("POST", "/v1/events", LINK, headers=[b"Content-Length: 1"]), 400),
        Sent(b"GET /healthz HTTP/1.1\r\n\r\n", 400), Sent(request("GET", "/healthz", headers=[b"X: " + b"y" * 1_000_000]), 431),
        "acceptance.test_slow_clients:test_a_badly_framed_request_is_refused_and_the_connection_ends",
    ),
    27: (
        *(post(LINK, 415, "Content-Type: application/json", b"Content-Type: " + t)
          for t in (b"application/vnd.api+json", b"text/html", b"application/x-www-form-urlencoded")),
        post(b"a=b", 415, "Content-Type: application/json", b"Content-Type: text/plain"),
        "api.test_limits:test_another_media_type_is_told_which_header_to_send",
    ),
    28: ("api.test_export:test_cells_that_a_spreadsheet_would_run_are_text", "api.test_export:test_harmless_cells_are_left_as_they_are"),
    29: (
        get(b"/%0d%0a%1b%5b31mforged", 404), get(b"/\x1b[31m", 400),
        "api.test_operations:test_control_characters_cannot_break_a_log_line",
    ),
    30: (
        member("actor", {"name": "a\u202eb\u200b\u0430"}, 201, ""), "acceptance.test_corpora:test_strings_come_back_as_they_were_sent",
    ),
    31: (
        *(get(f"/v1/events?sort={text}", 400, '"sort"')
          for text in ("seq%20DESC", "seq;DROP%20TABLE%20entry", "(select%201)", "-id", "", "SEQ")),
        get("/v1/events?order=desc", 400, '"order"'), get("/v1/events?actor=%27%20OR%201=1%20--", 200, '"events":[]'),
    ),
    32: (
        *(get(f"/v1/events?cursor={text}", 400, '"cursor"') for text in ("abc", "%27%20OR%201=1", "AAAA" * 11, "A" * 5_000, "%ff", "")),
        "api.test_pages:test_a_changed_cursor_is_refused_wherever_it_was_changed",
        "api.test_pages:test_another_tenant_s_cursor_is_refused",
        "api.test_pages:test_a_cursor_is_refused_at_another_endpoint",
        "api.test_pages:test_a_cursor_is_refused_with_other_filters_or_another_order",
        "api.test_pages:test_spellings_that_decode_to_the_same_bytes_are_refused",
    ),
    33: (
        *(get(f"/v1/events?limit={text}", 400, '"limit"')
          for text in ("-1", "0", "1e26", "1_0", "%2010", "10&limit=10", "%D9%A1", "", "9" * 30)),
        get("/v1/events?limit=100000", 200), "api.test_read:test_a_limit_over_the_maximum_is_the_maximum",
    ),
    34: (
        get("/v1/events?actor=%25", 200, '"events":[]'), get("/v1/events?action=_*", 200, '"events":[]'),
        get("/v1/events?" + "id=a&" * 101, 400, '"id"'),
        get("/v1/events?id=" + "a" * 1_025, 400, '"id"'), "api.test_read:test_filters_find_what_a_naive_filter_finds",
    ),
    35: (
        "api.test_read:test_another_tenant_s_event_is_not_found_in_the_same_words",
        "api.test_export:test_another_tenant_s_events_are_not_in_it",
        "api.test_keys:test_another_tenant_s_keys_are_neither_seen_nor_revoked",
        "store.test_walls:test_a_dropped_where_shows_only_the_bound_log",
    ),
    36: ("api.test_keys:test_whatever_is_no_live_key_gets_the_same_answer", "api.test_keys:test_only_the_hash_of_a_key_is_in_the_database"),
    37: (
        *(member(name, 1) for name in ("seq", "hash", "prev_hash", "recorded_at", "tenant", "log_id", "origin")),
        "store.test_walls:test_the_serving_role_is_refused",
    ),
    38: (
        member("id", "x" * 256), member("id", "x" * 10_000), member("id", ""), member("id", "a\0"),
        "api.test_idempotency:test_other_content_under_a_used_id_is_a_conflict",
        "api.test_idempotency:test_many_at_once_with_one_id_make_one_entry",
        "api.test_idempotency:test_another_tenant_may_use_the_same_id",
    ),
    39: (
        "api.test_problems:test_every_failure_is_a_problem_document_without_the_value",
        "api.test_problems:test_a_name_that_is_a_secret_is_not_repeated_either",
        "acceptance.test_canary:test_no_canary_is_found_anywhere",
    ),
    40: (
        *(value(json.dumps((part * 65_000)[:65_000]).encode(), 201, "")
          for part in ("a", "-", "A1b2-", "eyJ", "key=", "'\"", " \t", "@a.", "0")),
        "core.test_redaction_properties:test_hostile_text_of_100_kilobytes_takes_at_most_100_milliseconds",
    ),
}  # fmt: skip
SENT = [
    pytest.param(case, id=f"row {row} {number}")
    for row, cases in ROWS.items()
    for number, case in enumerate(case for case in cases if isinstance(case, Sent))
]


@pytest.fixture(scope="module")
async def port(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    """The whole service; whatever it was sent, its log verifies in the end, and no error was one that nobody planned for."""
    with start_service(tmp_path_factory.mktemp("bad") / "var", AUDIT_BOOTSTRAP_KEY=BOOTSTRAP_KEY) as service:
        opened = int(service.url.rpartition(":")[2])
        yield opened
        report = await ask(opened, request("GET", "/v1/chain/verify"))
        assert report is not None
        assert report.json()["status"] == "ok"
        assert "Traceback" not in service.output
        assert CANARY.decode() not in service.output


async def timed(port: int, data: bytes) -> tuple[Answer, float]:
    """The answer and the seconds it took."""
    started = time.monotonic()
    answer = await ask(port, data)
    assert answer is not None
    return answer, time.monotonic() - started


@pytest.mark.parametrize("case", SENT)
async def test_bad_input_is_answered_as_the_catalogue_says(port: int, case: Sent) -> None:
    answer, seconds = await timed(port, case.data)
    if seconds > LIMIT_SECONDS:  # the machine may have been busy
        answer, seconds = await timed(port, case.data)
    assert answer.status == case.status, answer
    assert case.text in answer.body.decode(), answer
    assert seconds < LIMIT_SECONDS
    if answer.status >= 400:
        assert CANARY not in answer.body
        assert answer.headers["content-type"] == "application/problem+json"
        Problem.model_validate(answer.json())


def test_every_row_is_here() -> None:
    assert list(ROWS) == list(range(1, 41))
    assert all(ROWS.values())


def test_every_test_that_is_named_exists() -> None:
    named = {case for cases in ROWS.values() for case in cases if isinstance(case, str)}
    missing = []
    for name in sorted(named):
        module, _, test = name.partition(":")
        found: Mapping[str, Any] = vars(importlib.import_module(f"tests.{module}"))
        if not (test.startswith("test_") and callable(found.get(test))):
            missing.append(name)
    assert missing == []


async def test_a_mapped_address_is_found_both_ways(port: int) -> None:
    for number, (sent, asked) in enumerate(
        (("::ffff:198.51.100.1", "198.51.100.1"), ("198.51.100.2", "::ffff:198.51.100.2"))
    ):
        event = {"action": "mapped", "id": f"mapped-{number}", "context": {"ip": sent}}
        stored = await ask(port, request("POST", "/v1/events", json.dumps(event).encode()))
        assert stored is not None
        assert stored.status == 201
        for text in (sent, asked):
            found = await ask(port, request("GET", f"/v1/events?ip={text}"))
            assert found is not None
            assert [event["id"] for event in found.json()["events"]] == [f"mapped-{number}"]


async def test_a_forwarded_address_is_nobodys(port: int) -> None:
    """The address in an event is the panel's claim; what proxies and clients write into headers is taken for nothing."""
    headers = [
        b"X-Forwarded-For: 198.51.100.77, [2001:db8::1]:80, \x01".replace(b", \x01", b""),
        b"Forwarded: for=198.51.100.77",
        b"X-Real-IP: 198.51.100.77",
    ]
    answer = await ask(port, request("POST", "/v1/events", b'{"action":"x","id":"forwarded"}', headers=headers))
    assert answer is not None
    assert answer.status == 201
    shown = await ask(port, request("GET", "/v1/events/forwarded"))
    assert shown is not None
    assert shown.json()["context"] is None
    assert b"198.51.100.77" not in shown.body


async def test_bytes_that_are_no_text_in_a_query_are_refused_or_harmless(port: int) -> None:
    """Also where the answer repeats the query: in the link to the next page."""
    events = [{"action": "linked", "id": f"linked-{n}"} for n in range(3)]
    assert (await ask(port, request("POST", "/v1/events", json.dumps(events).encode()))) is not None
    targets = (
        b"/v1/events?limit=1&action=linked&actor.not=\xff",
        b"/v1/events?limit=1&action=linked&actor.not=%ff",
        b"/v1/events?limit=1&actor.not=\xc3\xa9",
    )
    hosts = (b"[", b"a b", b"\xff", b"a:99999", b"", b"x>; rel=first", b"]:1", b"user@h")
    data = [request("GET", target) for target in targets]
    data += [request("GET", "/v1/events?limit=1&action=linked").replace(b"audit.test", host) for host in hosts]
    answers = await asyncio.gather(*(ask(port, one) for one in data))
    assert all(answer is not None and answer.status in {200, 400} for answer in answers), answers
