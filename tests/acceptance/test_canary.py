"""Promise 2: no secret is stored, and none goes out another way. Canaries in every redactable place and in rejected requests;
then every table, file, log line, metric, error body and export is searched for them."""

import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from audit_service import ingest
from audit_service.core import redaction, redaction_tree
from audit_service.embedded import EmbeddedPostgres
from tests.support.apps import dump, open_api
from tests.support.canaries import Canaries, accepted_events, quiet_queries, rejected_requests
from tests.support.postgres import Server, TestDatabase
from tests.support.processes import Service, start_service

FORMATS = ("csv", "json", "ndjson")


def client_of(service: Service) -> httpx.Client:
    """A client with the admin key."""
    headers = {"Authorization": f"Bearer {service.admin_key}"}
    return httpx.Client(base_url=service.url, headers=headers, trust_env=False, timeout=30)


def post_accepted(client: httpx.Client, canaries: Canaries) -> Iterator[tuple[str, bytes]]:
    """Send what must be taken, by itself, as a batch, as lines and as a CloudEvent; (what, answer)."""
    for number, (event, headers) in enumerate(accepted_events(canaries)):
        response = client.post("/v1/events", json=event, headers=headers)
        assert response.status_code == 201, response.text
        yield f"receipt {number}", response.content
    batch = {"events": [{"action": "canary.batch", "metadata": {"password": canaries.plain("batch")}}]}
    headers = {"Idempotency-Key": canaries.token("batch key")}
    yield "batch", client.post("/v1/events", json=batch, headers=headers).raise_for_status().content
    line = json.dumps(
        {"action": "canary.line", "after": {"api_key": canaries.plain("line")}, "reason": canaries.token("line reason")}
    )
    broken = f'{line}\n{{"{canaries.token("line member")}":1}}\n{{"broken {canaries.plain("broken line")}\n'
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": canaries.token("stream key")}
    yield "lines", client.post("/v1/events", content=broken, headers=headers).raise_for_status().content
    attributes = {
        "ce-specversion": "1.0", "ce-type": "canary.binary", "ce-source": "panel", "ce-id": f"1:{canaries.token('ce-id')}",
        "ce-subject": f"x {canaries.token('ce-subject')}", "ce-extension": canaries.token("ce-extension"),
    }  # fmt: skip
    response = client.post("/v1/events", json={"password": canaries.plain("ce-data")}, headers=attributes)
    assert response.status_code == 201, response.text
    yield "cloud event", response.content


def send_rejected(client: httpx.Client, canaries: Canaries) -> Iterator[tuple[str, bytes]]:
    """Send what must be refused; (what, answer)."""
    for number, (method, path, rest) in enumerate(rejected_requests(canaries)):
        response = client.request(method, path, **rest)
        assert 400 <= response.status_code < 500, (number, response.text)
        yield f"refusal {number} {method} {path[:12]}", response.content


def read_all(client: httpx.Client, canaries: Canaries) -> Iterator[tuple[str, bytes]]:
    """Every way to read; (what, answer)."""
    for number, query in enumerate(quiet_queries(canaries)):
        yield f"query {number}", client.get("/v1/events", params=query).raise_for_status().content
    yield "list", client.get("/v1/events", params={"limit": 500}).raise_for_status().content
    yield "event", client.get("/v1/events/c:rows").raise_for_status().content
    yield "metrics", client.get("/metrics").raise_for_status().content
    yield "keys", client.get("/v1/keys").raise_for_status().content
    yield "report", client.get("/v1/chain/verify").raise_for_status().content
    for format_ in FORMATS:
        yield format_, client.get("/v1/export", params={"format": format_}).raise_for_status().content


def send_garbage(service: Service, canaries: Canaries) -> None:
    """Bytes that are no HTTP; the server's parser has its own words for them."""
    port = int(service.url.rpartition(":")[2])
    for place, text in (
        ("garbage", "{} x y z\r\n\r\n"),
        ("bad header", "GET / HTTP/1.1\r\nHost: x\r\n{} \x00\r\n\r\n"),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(text.format(canaries.token(place)).encode())
            connection.recv(65536)


def test_no_canary_is_found_anywhere(tmp_path: Path) -> None:
    canaries = Canaries()
    answers: dict[str, bytes] = {}
    with start_service(tmp_path / "var") as service, client_of(service) as client:
        answers |= post_accepted(client, canaries)
        answers |= send_rejected(client, canaries)
        send_garbage(service, canaries)
        answers |= read_all(client, canaries)
        report = json.loads(answers["report"])
        assert (report["status"], report["checked"]["count"] >= 12) == ("ok", True)
        answers["dump"] = dump(EmbeddedPostgres.attach(service.data_dir).url())
        assert service.stop() == 0
        service.wait_until_read()
        answers["log"] = service.output.encode()
    assert len(canaries.planted) > 250
    assert b"[redacted]" in answers["ndjson"]
    assert b'"route":' in answers["log"].replace(b" ", b"")
    leaked = {what: places for what, answer in answers.items() if (places := canaries.found_in(answer))}
    assert leaked == {}
    # Tables, indexes, WAL, statistics, postgres.log and whatever else lies there, byte for byte.
    assert (tmp_path / "var" / "postgres.log").stat().st_size > 0
    assert canaries.found_under(tmp_path / "var") == {}


async def test_without_redaction_the_same_search_finds_them(
    server: Server, database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with rules that do nothing, every canary of an accepted event is in the dump, an export and a file."""
    monkeypatch.setattr(redaction, "redact_event", lambda event, changes, _rules: (event, changes))
    for module in (redaction, redaction_tree):
        monkeypatch.setattr(module, "redact_text", lambda text, _rules, **_: text)
    canaries = Canaries()
    sent = list(accepted_events(canaries))
    async with open_api(database) as api:
        for event, headers in sent:
            response = await api.client.post("/v1/events", json=event, headers=headers)
            assert response.status_code == 201, response.text
        exported = (await api.client.get("/v1/export")).content
        await api.assert_intact(len(sent))
    # These two never depend on the event's redaction: the header's is the route's, and a session is hashed.
    planted = set(canaries.planted) - {"idempotency key", "quoted idempotency key", "session_id"}
    # An unchanged part of a row is not stored at all, so what `partial` leaves alone is not there to be found.
    planted -= {"hidden"}
    assert planted - canaries.found_in(dump(database.owner_url)) == set()
    assert planted - canaries.found_in(exported) == set()
    owner = await database.owner()
    await owner.execute("CHECKPOINT")
    await owner.close()
    on_disk = canaries.found_under(server.postgres.cluster_dir)
    assert any(name.startswith("pg_wal") for name in on_disk)
    assert any(name.startswith("base") for name in on_disk)


async def test_without_redacted_places_an_error_shows_them(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control for error bodies."""
    monkeypatch.setattr(ingest, "without_secrets", lambda error, _rules: error)
    canaries = Canaries()
    async with open_api(database) as api:
        response = await api.post({"action": "x", canaries.token("member"): 1})
    assert canaries.found_in(response.content) == {"member"}


def test_the_search_knows_every_spelling_it_may_meet(tmp_path: Path) -> None:
    canaries = Canaries()
    token = canaries.token("place")
    text = token.encode()
    for data in (text, text.upper(), text.lower(), b"\\x" + text.hex().encode(), b"\0" + os.urandom(20) + text + b"\0"):
        assert canaries.found_in(data) == {"place"}
    assert canaries.found_in(secrets.token_bytes(100_000)) == set()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 1000 + text)
    assert canaries.found_under(tmp_path) == {"deep/file": {"place"}}
