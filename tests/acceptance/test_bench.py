"""`python -m benchmarks`: it measures something, says so in JSON too, and hides no miss."""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from benchmarks import __main__ as benchmarks
from benchmarks.client import generate
from benchmarks.events import batch_bytes, event_bytes
from benchmarks.load import lua_string
from benchmarks.report import BenchmarkError, Figure, Section, format_verdicts, ratio
from benchmarks.service import Running
from benchmarks.steady import post_beside

from audit_service.core.event import EventLimits, parse_json, validate

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """The benchmarks as a user runs them."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What a smoke run of P2 and the steps prints, and its JSON."""
    out = tmp_path_factory.mktemp("bench") / "results.json"
    ended = run("p2", "steps", "--quick", "--generator", "python", "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, json.loads(out.read_bytes())


def figures(results: dict[str, Any], key: str) -> dict[str, dict[str, Any]]:
    """The figures of a section by name."""
    (section,) = [section for section in results["sections"] if section["key"] == key]
    return {figure["name"]: figure for figure in section["figures"]}


def test_both_sides_of_p2_come_from_one_run_and_make_its_ratio(smoke: tuple[str, dict[str, Any]]) -> None:
    found = figures(smoke[1], "P2")
    ours, baseline = found["batch ingest, 1 worker, 1 connection"], found["COPY in transactions of 500"]
    p2 = found["P2: 1 worker, 1 connection ÷ COPY in transactions of 500"]
    assert p2["value"] == pytest.approx(ours["value"] / baseline["value"])
    assert p2["goal"] == 0.6
    assert p2["verdict"] == ("reached" if p2["value"] >= 0.6 else "not reached")
    assert ours["value"] > 10


def test_every_part_of_a_request_has_its_time_and_they_make_the_whole(smoke: tuple[str, dict[str, Any]]) -> None:
    found = figures(smoke[1], "steps")
    prefix = "single POST, 1 connection: "
    parts = {name.removeprefix(prefix): one for name, one in found.items() if name.startswith(prefix)}
    whole = parts.pop("whole request")["value"]
    assert {"parse", "validate", "diff", "redact", "append (PostgreSQL)", "HTTP"} <= set(parts)
    assert sum(part["value"] for part in parts.values()) == pytest.approx(whole)
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1)
    assert all(parts[name]["value"] > 0 for name in ("parse", "diff", "redact", "append (PostgreSQL)"))


@pytest.mark.parametrize("section", ["p4", "p7"])
def test_rows_are_the_senders_events_and_not_what_the_service_notes(section: str, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    ended = run(section, "--quick", "--folder", str(tmp_path), "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    assert json.loads(out.read_text())["sections"][0]["figures"][0]["value"] > 0


def test_machine_and_versions_stand_beside_the_figures(smoke: tuple[str, dict[str, Any]]) -> None:
    printed, results = smoke
    assert results["quick"] is True
    assert results["machine"]["cores"] >= 1
    assert results["machine"]["flush_microseconds"] > 0
    for name in ("python", "postgresql", "fastapi", "uvicorn", "pydantic", "asyncpg"):
        assert f"{name} {results['versions'][name]}" in printed
    assert "A smoke run" in printed


@pytest.mark.parametrize(("value", "verdict"), [(0.5999, "not reached"), (0.6, "reached"), (0.61, "reached")])
def test_a_goal_is_reached_from_its_own_value_on(value: float, verdict: str) -> None:
    assert verdict == Figure("x", value, "ratio", 0.6).verdict


def test_a_miss_is_printed_as_a_miss_and_does_not_look_like_a_hit() -> None:
    section = Section("P9", "title", [ratio("made up", 5999.9, 10_000, 0.6)])
    (line,) = [line for line in format_verdicts([section]).splitlines() if "made up" in line]
    assert "not reached" in line
    assert "0.599" in line


def test_an_unknown_section_is_refused_with_the_known_ones() -> None:
    ended = run("p99")
    assert ended.returncode == 2
    assert all(name in ended.stderr for name in ("p99", *benchmarks.SECTIONS))


def test_the_events_that_are_sent_are_valid_and_of_the_published_size() -> None:
    sizes = []
    for number in range(300):
        data = event_bytes(number, "x")
        sizes.append(len(data))
        event = validate(parse_json(data), now=datetime.now(UTC), limits=EventLimits())
        assert f"x:{number}" == event["id"]
    assert 500 < sum(sizes) / len(sizes) < 1000
    assert len(json.loads(batch_bytes(10, 7, "x"))["events"]) == 7


def test_a_lua_string_is_the_same_bytes() -> None:
    data = bytes(range(256)) + "POST /v1/events é\r\n1\r\n".encode()
    literal = lua_string(data)
    assert re.fullmatch(r'"(?:[A-Za-z0-9]|\\\d{3})*"', literal)
    read_back = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1])), literal[1:-1]).encode("latin-1")
    assert data == read_back


Answer = Callable[[StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"


async def _load(answer: Answer) -> dict[str, float]:
    """What the Python client finds at a server that answers every request by `answer`."""

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readexactly(4) == b"ping":
                await answer(writer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        return await generate(host, port, connections=2, seconds=0.1, requests=[b"ping"])


async def test_the_client_counts_whole_answers_that_come_in_pieces() -> None:
    async def in_pieces(writer: StreamWriter) -> None:
        for piece in (OK[:10], OK[10:40], OK[40:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    found = await _load(in_pieces)
    assert found["requests"] > 2
    assert found["bad"] == 0
    assert found["p50_us"] <= found["p99_us"]


async def test_the_client_counts_an_error_as_bad() -> None:
    async def refuse(writer: StreamWriter) -> None:
        writer.write(OK.replace(b"201 Created", b"503 Unavailable"))

    found = await _load(refuse)
    assert found["bad"] == found["requests"] > 0


async def test_the_client_counts_a_lost_connection_as_bad() -> None:
    async def hang_up(writer: StreamWriter) -> None:
        writer.close()

    found = await _load(hang_up)
    assert found["bad"] == 2
    assert found["requests"] == 0


def test_proofs_are_measured_in_a_thin_log_which_says_what_it_lacks(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    ended = run("proofs", "--quick", "--events", "70000", "--folder", str(tmp_path), "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    found = figures(json.loads(out.read_bytes()), "proofs")
    assert found["inclusion over HTTP, p99"]["goal"] == 10
    assert found["inclusion: p50"]["value"] > 0.1
    assert "A thin log" in ended.stdout
    assert len(list((tmp_path / "seeded").glob("thin-70000-*/seeded.json"))) == 1


def test_forgetting_beside_posts_has_its_figures_and_the_log_verifies(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    ended = run("forgetting", "--quick", "--events", "3000", "--folder", str(tmp_path), "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    found = {name: figure["value"] for name, figure in figures(json.loads(out.read_bytes()), "forgetting").items()}
    for name in ("erase", "clear", "prune"):
        before, beside = found[f"{name}: posts just before, p99"], found[f"{name}: posts beside it, p99"]
        assert found[f"{name}: p99 of posts beside it ÷ just before"] == pytest.approx(beside / before)
        assert found[f"{name}: posts beside it, longest"] >= beside
        assert found[f"{name}: entries a second"] > 0
    assert 900 < found["erase: entries"] < 1800
    assert found["clear: entries"] > 3000
    assert list(tmp_path.glob("*/forgetting-*")) == []
    assert len(list((tmp_path / "seeded").glob("seeded-3000-*/seeded.json"))) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (OK, None),
        (OK.replace(b"201 Created", b"503 Unavailable"), "answered with 503"),
        (OK[:20], "longer than 0.5 s"),
    ],
    ids=["stored", "refused", "late"],
)
def test_a_post_that_is_refused_or_late_ends_the_run(answer: bytes, error: str | None) -> None:
    asked = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.wfile.write(answer)
            asked.set()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        service = Running(f"http://127.0.0.1:{server.server_address[1]}", "key", Path())
        try:
            with nullcontext() if error is None else pytest.raises(BenchmarkError, match=error):
                times, done = post_beside(service, "x", lambda: asked.wait(30), limit_seconds=0.5)
                assert done
                assert 0 < min(times) <= max(times) < 0.5
        finally:
            server.shutdown()


def test_every_entry_of_a_busy_log_is_covered_by_a_checkpoint_within_five_seconds(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    ended = run("lag", "--quick", "--generator", "python", "--folder", str(tmp_path), "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    found = figures(json.loads(out.read_bytes()), "lag")
    for name in ("single posts, 32 connections", "batches of 500, 4 connections"):
        assert found[f"{name}: entries"]["value"] > 500
        assert found[f"{name}: checkpoints that cover them"]["value"] >= 2
        assert 0 < found[f"{name}: p50"]["value"] <= found[f"{name}: longest"]["value"] <= 5
