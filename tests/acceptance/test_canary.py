"""Promise 2: no secret is stored, and none goes out another way. Canaries in every redactable place and in rejected requests;
then every table, file, log line, metric, error body and export is searched for them. So it is with real keys, viewer tokens and secret
files, and with what is sent in their place: nothing but the answer that shows a key once has it."""

import io
import json
import os
import secrets
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from audit_service import ingest
from audit_service.api.routes import keys
from audit_service.core import redaction, redaction_tree
from audit_service.core.api_key import format_key
from audit_service.embedded import EmbeddedPostgres
from tests.support.apps import dump, open_api
from tests.support.canaries import Canaries, accepted_events, quiet_queries, rejected_requests
from tests.support.credential_canaries import Holder, forwarded, plant_key, refused_logins, secret_files
from tests.support.postgres import Server, TestDatabase
from tests.support.processes import Service, start_service, wait_until

FORMATS = ("csv", "json", "ndjson")


def client_of(service: Service) -> httpx.Client:
    """A client with the admin key."""
    return client_with(service, service.admin_key)


def client_with(service: Service, key: str) -> httpx.Client:
    """A client with this key."""
    headers = {"Authorization": f"Bearer {key}"}
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


def without_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redaction of events does nothing."""
    monkeypatch.setattr(redaction, "redact_event", lambda event, changes, _rules: (event, changes))
    for module in (redaction, redaction_tree):
        monkeypatch.setattr(module, "redact_text", lambda text, _rules, **_: text)


# --- credentials ---

LIMITS = {
    "server_ids": ["s1"],
    "global_events": True,
    "categories": ["canary"],
    "staff_as": "Support",
    "networks": ["127.0.0.0/8"],
}


def use_credentials(holder: Holder, canaries: Canaries) -> None:
    """Every way in which a key or a token is made, used, listed and ended."""
    name = f"node {canaries.token('name of a key')}"
    limited = holder.make("limited key", "/v1/keys", "key", {"name": name, "scopes": ["read", "export"], **LIMITS})
    backend = holder.make("backend", "/v1/keys", "key", {"name": "backend", "scopes": ["read", "export", "viewer"]})
    wanted = {"server_ids": "all", "export": True, "viewer": f"ana {canaries.plain('viewer')}"}
    tokens = [holder.make(f"token {n}", "/v1/viewer-tokens", "token", wanted, key=backend["key"]) for n in range(2)]
    refused = {
        "server_ids": "all",
        "own_actions_of": canaries.token("own_actions_of"),
        canaries.token("member of a token"): 1,
    }
    holder.ask("refused token", "POST", "/v1/viewer-tokens", 422, json=refused)
    refused = {
        "name": "x",
        "scopes": ["read"],
        "client": canaries.token("client"),
        "categories": [canaries.token("category")],
    }
    holder.ask("refused key", "POST", "/v1/keys", 422, json=refused)
    for n, key in enumerate([limited["key"], *(token["token"] for token in tokens)]):
        holder.ask(f"list {n}", "GET", "/v1/events", 200, key=key)
        holder.ask(f"export {n}", "GET", "/v1/export?format=csv", 200, key=key)
        holder.ask(f"evidence {n}", "GET", "/v1/evidence", 403, key=key)
        holder.ask(f"keys {n}", "GET", "/v1/keys", 403, key=key)
        holder.ask(f"post {n}", "POST", "/v1/events", 403, key=key, json={"action": "x"})
        holder.ask(f"hidden {n}", "GET", "/v1/events", 200, 403, key=key, params={"ip": "192.0.2.1"})
    path = f"/v1/viewer-tokens/{tokens[0]['token_id']}"
    holder.ask("renewed", "POST", f"{path}/renew", 200, key=backend["key"], json={})
    holder.ask("tokens", "GET", "/v1/viewer-tokens", 200, key=backend["key"])
    holder.ask("revoked token", "DELETE", path, 204, key=backend["key"])
    holder.ask("token that was revoked", "GET", "/v1/events", 200, 401, key=tokens[0]["token"])
    holder.ask("revoked key", "DELETE", f"/v1/keys/{backend['key_id']}", 204)
    holder.ask("keys", "GET", "/v1/keys", 200)


def use_commands(holder: Holder, canaries: Canaries) -> None:
    """Keys and tenants as an operator makes them; and a tenant over HTTP, by a key of the service's own."""
    holder.run("key by command", "keys", "create", "node", "--scope", "read", "--client", "c", "--json", shows="key")
    system = ("--tenant", "system", "--scope", "admin", "--json")
    made = json.loads(holder.run("key of system", "keys", "create", "owner", *system, shows="key"))
    holder.make("tenant", "/v1/tenants", "key", {"name": "second"}, key=made["key"])
    holder.ask("tenants", "GET", "/v1/tenants", 200, key=made["key"])
    holder.ask(
        "refused tenant", "POST", "/v1/tenants", 422, key=made["key"], json={"name": canaries.token("name of a tenant")}
    )
    for kind in ("api_key", "viewer_token"):
        key = plant_key(canaries, f"checked {kind}", format_key(os.urandom(48), kind))
        holder.run(f"{kind} checked", "keys", "check", piped=key)
        holder.run(f"{kind} checked, mistyped", "keys", "check", "--json", piped=key[:-1] + "-")
    holder.run("keys listed", "keys", "list", "--json")
    holder.run("revoked by command", "keys", "revoke", made["key_id"])


def send_refused(holder: Holder, canaries: Canaries, secrets_: dict[str, str]) -> None:
    """Log-ins that fail, and headers that nobody may write."""
    for n, (method, path, rest) in enumerate(refused_logins(canaries)):
        json_body: dict[str, Any] = {"json": {"action": "x"}} if method == "POST" else {}
        holder.ask(f"log-in {n} {method} {path[:14]}", method, path, 401, anonymous=True, **json_body, **rest)
    for n, headers in enumerate(forwarded(canaries)):
        holder.ask(f"forwarded {n}", "GET", "/v1/events", 200, headers=headers)
        holder.ask(f"forwarded {n}, refused", "GET", "/v1/events", 401, anonymous=True, headers=headers)
    signature = {"X-Hook-Signature": canaries.plain("X-Hook-Signature")}
    holder.ask("webhook", "POST", "/adapters/netbox", 400, 401, 422, json={}, headers=signature)
    holder.ask("metrics", "GET", "/metrics", 200, key=secrets_["AUDIT_METRICS_KEY"])


def noted_actions(holder: Holder) -> set[str]:
    """What the service has noted about itself; the notes are kept among the answers."""
    notes = holder.ask("notes", "GET", "/v1/events", 200, params={"action": "audit.*", "limit": 500})
    return {event["action"] for event in notes.json()["events"]}


NOTED = {
    "audit.key.created", "audit.key.revoked", "audit.viewer_token.issued", "audit.viewer_token.renewed", "audit.viewer_token.revoked",
    "audit.access.denied", "audit.export.finished", "audit.evidence.finished",
}  # fmt: skip


def test_no_key_or_token_is_found_anywhere_but_where_it_is_shown_once(tmp_path: Path) -> None:
    """Used by one run of the service and searched for in the next, so that what was counted is noted too."""
    canaries, var = Canaries(), tmp_path / "var"
    settings, secrets_ = secret_files(canaries, tmp_path)
    settings |= {
        "AUDIT_TRUSTED_PROXIES": "127.0.0.0/8",
        "AUDIT_SIGNING_INTERVAL_SECONDS": "1",
        "AUDIT_LOG_READS": "true",
    }
    answers: dict[str, bytes] = {}
    with start_service(var, **settings) as service:
        with client_with(service, secrets_["AUDIT_BOOTSTRAP_KEY"]) as client:
            holder = Holder(canaries, client, var, settings, answers)
            holder.ask("posted", "POST", "/v1/events", 201, json={"action": "canary.made", "server_id": "s1"})
            use_credentials(holder, canaries)
            use_commands(holder, canaries)
            send_refused(holder, canaries, secrets_)
            wait_until(lambda: client.get("/v1/evidence").status_code == 200, "a signed log", seconds=60)
            with zipfile.ZipFile(io.BytesIO(client.get("/v1/evidence").content)) as bundle:
                answers["bundle"] = b"".join(map(bundle.read, bundle.namelist()))
        assert service.stop() == 0
        service.wait_until_read()
        answers["log"] = service.output.encode()
    with start_service(var, **settings) as service:
        with client_with(service, secrets_["AUDIT_BOOTSTRAP_KEY"]) as client:
            again = Holder(canaries, client, var, settings, answers)
            assert noted_actions(again) >= NOTED
            again.ask("metrics again", "GET", "/metrics", 200, key=secrets_["AUDIT_METRICS_KEY"])
            again.ask("export of everything", "GET", "/v1/export", 200)
        answers["dump"] = dump(EmbeddedPostgres.attach(service.data_dir).url())
        assert service.stop() == 0
        service.wait_until_read()
        answers["log again"] = service.output.encode()
    assert b"audit.auth.failed" in answers["dump"]
    assert len(canaries.planted) > 60
    leaked = {what: places for what, answer in answers.items() if (places := canaries.found_in(answer))}
    assert leaked == {}
    assert canaries.found_under(var) == {}


@pytest.mark.parametrize("piece", [slice(None), slice(40)], ids=["a whole key", "the half of one"])
async def test_the_same_search_finds_a_key_that_is_planted(
    server: Server, database: TestDatabase, monkeypatch: pytest.MonkeyPatch, piece: slice
) -> None:
    """The control: one in the name of a key, with rules that do nothing, is in the list of keys, in what the service notes, in an export,
    in the dump and in a file."""
    monkeypatch.setattr(keys, "redact_text", lambda text, _rules: text)
    without_rules(monkeypatch)
    canaries = Canaries()
    key = plant_key(canaries, "name of a key", format_key(os.urandom(48)))
    async with open_api(database) as api:
        made = await api.client.post("/v1/keys", json={"name": f"node {key[piece]}", "scopes": ["read"]})
        assert made.status_code == 201, made.text
        for path in ("/v1/keys", "/v1/events?action=audit.key.created", "/v1/export"):
            assert canaries.found_in((await api.client.get(path)).content) == {"name of a key"}, path
    assert canaries.found_in(dump(database.owner_url)) == {"name of a key"}
    owner = await database.owner()
    await owner.execute("CHECKPOINT")
    await owner.close()
    assert any(name.startswith("base") for name in canaries.found_under(server.postgres.cluster_dir))


async def test_without_redaction_the_same_search_finds_them(
    server: Server, database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with rules that do nothing, every canary of an accepted event is in the dump, an export and a file."""
    without_rules(monkeypatch)
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
