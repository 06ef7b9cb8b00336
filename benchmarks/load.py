"""Load over HTTP: many connections with small requests (`wrk`, or `benchmarks.client` without it), or a few with large ones."""

import http.client
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from benchmarks.report import BenchmarkError

Generator = Literal["wrk", "python"]
REQUEST_TIMEOUT_SECONDS = 60.0

# The requests come ready-made, so that Lua only picks the next one.
LUA = """
local requests = {{ {requests} }}
local turn = 0
request = function()
    turn = turn % #requests + 1
    return requests[turn]
end
done = function(summary, latency)
    local e = summary.errors
    io.write(string.format(
        '\\n{{"requests":%d,"bad":%d,"duration_us":%d,"mean_us":%.1f,"p50_us":%d,"p99_us":%d}}\\n',
        summary.requests, e.connect + e.read + e.write + e.status + e.timeout, summary.duration,
        latency.mean, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What a run of a generator found."""

    requests: int
    per_second: float
    mean_ms: float
    p50_ms: float
    p99_ms: float


def choose_generator(wanted: str) -> Generator:
    """`wrk` where it is installed, unless the Python client is asked for."""
    if wanted == "python" or (wanted == "auto" and shutil.which("wrk") is None):
        return "python"
    if shutil.which("wrk") is None:
        raise BenchmarkError("wrk is not installed; it is a package of Debian and others")
    return "wrk"


def describe_generator(generator: Generator) -> str:
    """Which generator, and what that means for the figures."""
    if generator == "wrk":
        shown = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
        return " ".join((shown.stdout + shown.stderr).split()[:2]) + ", one thread, on the same machine"
    return "own client in Python (wrk is not installed): it takes a good part of a core of the same machine, on both sides alike"


def post_request(url: str, key: str, body: bytes) -> bytes:
    """The bytes of a POST /v1/events."""
    place = urlsplit(url)
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def run_load(generator: Generator, url: str, requests: Sequence[bytes], *, connections: int, seconds: int) -> Load:
    """Keep `connections` busy with `requests` in turn. Raises BenchmarkError when anything was answered with an error."""
    run = _run_wrk if generator == "wrk" else _run_client
    found = json.loads(run(url, requests, connections, seconds).strip().rpartition("\n")[2])
    if found["bad"] or not found["requests"]:
        raise BenchmarkError(f"{found['bad']} of {found['requests']} requests failed")
    per_second = found["requests"] / (found["duration_us"] / 1e6)
    return Load(found["requests"], per_second, *(found[name] / 1000 for name in ("mean_us", "p50_us", "p99_us")))


def _run_wrk(url: str, requests: Sequence[bytes], connections: int, seconds: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "load.lua")
        script.write_text(LUA.format(requests=", ".join(map(lua_string, requests))))
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            f"{REQUEST_TIMEOUT_SECONDS:.0f}s",
            "-s",
            str(script),
            url,
        ]
        return _output(command, None)


def lua_string(data: bytes) -> str:
    """A Lua string literal of exactly these bytes: a long bracket would turn CR LF into LF."""
    return '"' + "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\{byte:03d}" for byte in data) + '"'


def _run_client(url: str, requests: Sequence[bytes], connections: int, seconds: int) -> str:
    place = urlsplit(url)
    plan = {
        "host": place.hostname,
        "port": place.port,
        "connections": connections,
        "seconds": seconds,
        "requests": [request.decode("latin-1") for request in requests],
    }
    return _output([sys.executable, "-m", "benchmarks.client"], json.dumps(plan))


def _output(command: list[str], text: str | None) -> str:
    # From the folder above this package, so that the client finds it.
    ended = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, cwd=Path(__file__).resolve().parent.parent
    )
    if ended.returncode != 0:
        raise BenchmarkError(f"{command[0]} failed:\n{ended.stdout[-1000:]}{ended.stderr[-1000:]}")
    return ended.stdout


def send_batches(url: str, batches: Sequence[tuple[str, bytes]], *, events: int, connections: int) -> float:
    """POST each (key, body) once, `connections` at a time: the seconds it took. A batch of `events` keeps the client idle.

    Raises BenchmarkError unless every event of every batch was accepted.
    """
    netloc = urlsplit(url).netloc
    began = time.perf_counter()
    with ThreadPoolExecutor(connections) as senders:
        shares = [batches[first::connections] for first in range(connections)]
        answers = list(itertools.chain(*senders.map(lambda share: _post_all(netloc, share), shares)))
    seconds = time.perf_counter() - began
    for status, answer in answers:
        if status != 201 or json.loads(answer)["accepted"] != events:
            raise BenchmarkError(f"a batch was answered with {status}: {answer[:500]!r}")
    return seconds


def _post_all(netloc: str, batches: Sequence[tuple[str, bytes]]) -> list[tuple[int, bytes]]:
    connection = http.client.HTTPConnection(netloc, timeout=REQUEST_TIMEOUT_SECONDS)
    answers = []
    try:
        for key, body in batches:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/events", body, headers)
            response = connection.getresponse()
            answers.append((response.status, response.read()))
    finally:
        connection.close()
    return answers
