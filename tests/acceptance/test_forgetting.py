"""Forgetting as an operator does it: the commands on a database; and under a real `serve`, from asking to a pruned log that verifies."""

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest

from audit_service.console import EXIT_GOOD, EXIT_UNKNOWN
from audit_service.core.vkey import format_vkey
from audit_service.offline import verify_file
from audit_service.signing.keyfile import read_keys
from tests.support.api import Api
from tests.support.commands import Told, command, tell
from tests.support.processes import Service, start_service, wait_until

REASON = ("--reason", "as the test asks")
ANA = {"type": "user", "id": "u12", "name": "Ana Gómez", "email": "ana@example.com"}


async def json_of(told: Told) -> Any:
    """What a command with --json has said."""
    assert told.status == EXIT_GOOD, told.err.decode()
    return json.loads(told.out)


@pytest.fixture
async def filled(api: Api) -> Api:
    """Five events, three of them Ana's."""
    await api.accept(
        *({"id": f"e{number}", "action": "server.updated", "actor": ANA} for number in range(3)),
        {"id": "e3", "action": "auth.login", "actor": {"type": "user", "id": "u1"}},
        {"id": "e4", "action": "user.updated", "target": {"type": "user", "id": "u12"}, "description": "about Ana"},
    )
    return api


async def test_an_erasure_by_command(filled: Api, database: Any) -> None:
    arguments = ("erase", "--actor", "u12", "--request", "GDPR-1", *REASON)
    dry = await json_of(await tell(database, *arguments, "--dry-run", "--json"))
    assert dry == {"dry_run": True, "entries": 3, "values": 6, "held": 0, "damaged": 0, "control_entries": 0}
    unasked = await tell(database, *arguments)
    assert (unasked.status, b"add --yes" in unasked.err) == (EXIT_UNKNOWN, True)
    assert len(await filled.list(actor="u12")) == 3
    done = await json_of(await tell(database, *arguments, "--yes", "--json"))
    assert (done["entries"], done["control_entries"]) == (3, [5])
    assert await filled.list(actor="u12") == []
    again = await json_of(await tell(database, *arguments, "--yes", "--json"))
    assert (again["entries"], again["control_entries"]) == (0, [])
    target = await json_of(
        await tell(database, "erase", "--target", "user:u12", "--request", "r", *REASON, "--yes", "--json")
    )
    assert target["entries"] == 1
    events = await json_of(
        await tell(
            database, "erase", "--event", "e3", "--groups", "actor", "--request", "r", *REASON, "--yes", "--json"
        )
    )
    assert (events["entries"], events["values"]) == (1, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("erase", "--request", "r", *REASON),
        ("erase", "--actor", "a", "--event", "e", "--request", "r", *REASON),
        ("erase", "--target", "u12", "--request", "r", *REASON),
        ("erase", "--event", "e", "--actor-type", "user", "--request", "r", *REASON),
        ("erase", "--actor", "a", "--groups", "everything", "--request", "r", *REASON),
        ("clear", "--reason", "two\nlines", "--yes"),
        ("clear", "--reason", "x", "--tenant", "nobody", "--yes"),
        ("hold", "set", *REASON),
        ("hold", "set", "--from-seq", "3", *REASON),
        ("hold", "set", "--from-seq", "3", "--to-seq", "3", *REASON),
        ("hold", "lift", "--hold", "none", *REASON),
        ("retention", "unset"),
        ("requests", "run", "none"),
        ("requests", "refuse", "none"),
        ("prune", "--before", "3", *REASON),
        ("prune", "--before", "yesterday", "--dry-run", *REASON),
        ("prune", "--before", "3", "--dry-run", "--key", "no key", *REASON),
    ],
    ids=lambda arguments: " ".join(arguments[:4]),
)
async def test_a_command_that_makes_no_sense_is_one_line_and_exit_2(
    filled: Api, database: Any, arguments: tuple[str, ...]
) -> None:
    told = await tell(database, *arguments)
    assert (told.status, told.out) == (EXIT_UNKNOWN, b"")
    assert told.err.count(b"\n") >= 1
    assert b"Traceback" not in told.err
    assert len(await filled.list()) == 5


async def test_holds_by_command_keep_what_a_clear_would_take(filled: Api, database: Any) -> None:
    by_target = await json_of(await tell(database, "hold", "set", "--target", "user:u12", *REASON, "--json"))
    await json_of(await tell(database, "hold", "set", "--from-seq", "0", "--to-seq", "1", *REASON, "--json"))
    listed = await json_of(await tell(database, "hold", "list", "--json"))
    assert [(hold["target_id"], hold["from_seq"], hold["to_seq"]) for hold in listed] == [
        ("u12", None, None),
        (None, 0, 1),
    ]
    cleared = await json_of(await tell(database, "clear", *REASON, "--yes", "--json"))
    assert (cleared["entries"], cleared["held"]) == (3, 2)
    assert {event["id"] for event in await filled.list(category__not="audit")} == {"e0", "e4"}
    await json_of(await tell(database, "hold", "lift", "--hold", by_target["hold"], *REASON, "--json"))
    cleared = await json_of(await tell(database, "clear", *REASON, "--yes", "--json"))
    assert (cleared["entries"], cleared["held"]) == (1, 1)


@pytest.mark.usefixtures("filled")
async def test_policies_by_command(database: Any) -> None:
    assert (await tell(database, "retention", "set", "--days", "30", "--category", "auth")).status == EXIT_GOOD
    assert (await tell(database, "retention", "set", "--days", "365")).status == EXIT_GOOD
    listed = await json_of(await tell(database, "retention", "list", "--json"))
    assert [(row["category"], row["days"]) for row in listed] == [(None, 365), ("auth", 30)]
    ran = await json_of(await tell(database, "retention", "run", "--dry-run", "--json"))
    assert [(row["category"], row["entries"]) for row in ran] == [(None, 0), ("auth", 0)]
    assert (await tell(database, "retention", "unset", "--category", "auth")).status == EXIT_GOOD
    assert len(await json_of(await tell(database, "retention", "list", "--json"))) == 1


async def test_requests_by_command(filled: Api, database: Any) -> None:
    answers = [
        (await filled.client.post("/v1/retention/requests", json={"action": "clear", "reason": "x"})).json()
        for _ in range(2)
    ]
    listed = await json_of(await tell(database, "requests", "list", "--json"))
    assert {row["request_id"] for row in listed} == {answer["id"] for answer in answers}
    assert (await tell(database, "requests", "refuse", answers[0]["id"])).status == EXIT_GOOD
    done = await json_of(await tell(database, "requests", "run", answers[1]["id"], "--json"))
    assert (done["status"], done["result"]["entries"]) == ("done", 6)  # the note of the request, too


# --- under a real `serve` ---


def test_under_serve_what_is_asked_for_is_done_and_evidence_and_pruned_logs_still_verify(tmp_path: Path) -> None:
    """Over HTTP and the command line alone: erasure by the keeper, checkpoints by the signer, archive, prune, evidence of what is left."""
    events = [{"id": f"e{n}", "action": "server.updated", "actor": ANA if n % 3 else None} for n in range(300)]
    with start_service(
        tmp_path / "var", AUDIT_SIGNING_INTERVAL_SECONDS="1", AUDIT_REQUEST_DELAY_SECONDS="0"
    ) as service:
        headers = {"Authorization": f"Bearer {service.admin_key}"}
        with httpx.Client(base_url=service.url, headers=headers, timeout=30) as client:
            for part in (events[:200], events[200:]):
                assert client.post("/v1/events", json={"events": part}).status_code == 201
                _wait_signed(client, client.get("/v1/chain").json()["size"])
            keys = _vkeys(service, client)
            # The first tile is full, and a cut was signed within it.
            planned = _command(service, "prune", "--before", "256", "--dry-run", "--json", *REASON)
            assert 200 <= planned["cut"] <= 256
            archive = _evidence(client, tmp_path / "archive.zip", to_seq=planned["cut"])
            _assert_good(archive, keys)

            asked = client.post("/v1/erasures/requests", json={"actor": {"id": "u12"}, "reason": "x"}).json()
            place = f"/v1/erasures/requests/{asked['id']}"
            wait_until(lambda: client.get(place).json()["status"] == "done", "the keeper carries it out", 60)
            assert client.get(place).json()["result"]["entries"] == 200
            assert client.get("/v1/events", params={"actor": "u12"}).json()["events"] == []
            _wait_signed(client, client.get("/v1/chain").json()["size"])
            _assert_good(_evidence(client, tmp_path / "erased.zip"), keys)
            report = _command(service, "verify", "--json")
            assert (report["status"], report["erased"], report["breaks"]) == ("ok", 400, [])

            pruned = _command(
                service, "prune", "--before", "256", "--archive", str(archive), "--yes", "--json", *REASON
            )
            assert (pruned["cut"], pruned["deleted"]) == (planned["cut"], planned["cut"])
            assert client.get("/v1/events/e0").status_code == 410
            _wait_signed(client, client.get("/v1/chain").json()["size"])
            left = _evidence(client, tmp_path / "left.zip")
            _assert_good(left, keys)
            with ZipFile(left) as bundle:
                assert json.loads(bundle.read("manifest.json"))["from_seq"] == planned["cut"]
            note = tmp_path / "checkpoint"
            note.write_bytes(client.get("/v1/chain/checkpoint").content)
            trusted = [argument for key in keys for argument in ("--key", key)]
            report = _command(service, "verify", "--checkpoint", str(note), *trusted, "--json")
            assert (report["status"], report["pruned_before"], report["breaks"]) == ("ok", planned["cut"], [])
            assert report["checkpoint"]["status"] == "consistent"


def _wait_signed(client: httpx.Client, size: int) -> None:
    """Until a checkpoint covers so many entries."""

    def signed() -> int:
        response = client.get("/v1/chain/checkpoint")
        return int(response.text.split("\n")[1]) if response.status_code == 200 else 0

    wait_until(lambda: signed() >= size, f"a checkpoint of size {size}", 60)


def _vkeys(service: Service, client: httpx.Client) -> list[str]:
    """What an operator would have written down at the first start."""
    origin = client.get("/v1/chain").json()["origin"]
    keys = read_keys(service.data_dir / "signing" / "key.json")
    return [format_vkey(key) for key in keys.verifiers(origin)]


def _command(service: Service, *arguments: str) -> Any:
    """What `audit-service` says, beside the running service."""
    done = command(service.data_dir, *arguments)
    assert done.returncode == EXIT_GOOD, done.stderr
    return json.loads(done.stdout)


def _evidence(client: httpx.Client, path: Path, **parameters: int) -> Path:
    response = client.get("/v1/evidence", params=parameters)
    assert response.status_code == 200, response.text
    path.write_bytes(response.content)
    return path


def _assert_good(bundle: Path, keys: list[str]) -> None:
    report = verify_file.verify(bundle, keys)
    assert report.exit_code() == verify_file.EXIT_GOOD, report.as_json()


async def test_an_event_is_named_by_the_id_it_was_sent_with(api: Api, database: Any) -> None:
    """Though another one is stored, because a secret is in it: by command as over HTTP."""
    sent = "key-ghp_" + "a1B2" * 9
    (receipt,) = await api.accept({"id": sent, "action": "x", "actor": {"id": "u1"}})
    assert receipt["id"] != sent
    arguments = ("erase", "--event", sent, "--request", "r", *REASON, "--yes", "--json")
    assert (await json_of(await tell(database, *arguments)))["entries"] == 1
