"""The background verification as a process of `serve`: it finds, says and shows what a DBA does, and outlives kills and outages."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.acceptance.test_signer import fetch, post, signed_size
from tests.support.commands import command
from tests.support.processes import Service, is_alive, start_service, wait_until

NAMED = r'"event": "a log does not verify"'


def verifier_of(service: Service) -> psutil.Process | None:
    """The verifier's process, if it runs."""
    return next((one for one in service.children() if "audit_service.verifier" in one.cmdline()), None)


def chain(service: Service) -> dict[str, Any]:
    """GET /v1/chain."""
    headers = {"Authorization": f"Bearer {service.admin_key}"}
    answer: dict[str, Any] = httpx.get(f"{service.url}/v1/chain", headers=headers, timeout=10, trust_env=False).json()
    return answer


def verified_size(service: Service) -> int:
    """How far the log was found right."""
    last = chain(service)["last_verified"]
    return -1 if last is None or last["status"] != "ok" else int(last["size"])


def metric(service: Service, name: str) -> float:
    """One figure of /metrics."""
    text = httpx.get(f"{service.url}/metrics", timeout=10, trust_env=False).text
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    assert found is not None, name
    return float(found.group(1))


def test_an_edit_of_the_database_is_found_named_and_shown(tmp_path: Path) -> None:
    """Two workers: each shows what the one verifier found. Killed with -9 again and again, it goes on from what it knew."""
    with start_service(tmp_path / "var", AUDIT_VERIFY_INTERVAL_SECONDS="1", AUDIT_WORKERS="2") as service:
        size = post(service, 200)
        wait_until(lambda: verified_size(service) >= size, "the log is verified", 30)
        for _ in range(5):
            killed = verifier_of(service)
            assert killed is not None
            killed.kill()
            wait_until(lambda killed=killed: not is_alive(killed), "it is dead")  # type: ignore[misc]
            size = post(service, 50)
            wait_until(lambda size=size: verified_size(service) >= size, "the next one goes on", 40)  # type: ignore[misc]
            assert metric(service, "audit_verified_breaks") == 0
        verifier = verifier_of(service)
        assert verifier is not None
        assert verifier.nice() >= 10
        assert metric(service, "audit_verified_size") >= size
        service.wait_for_line(r'"event": "verified"')
        fetch(service, "ALTER TABLE audit.entry DISABLE TRIGGER ALL")
        fetch(service, "UPDATE audit.entry SET body = replace(body, 'a.b', 'x.y') WHERE seq = $1", size - 1)
        for _ in range(2):  # below the point it is the full run's to find; the round under way does not count
            at = chain(service)["last_verified"]["at"]
            wait_until(lambda at=at: chain(service)["last_verified"]["at"] != at, "a round")  # type: ignore[misc]
        assert verified_size(service) == size
        verifier.kill()  # a round under way would write the files anew
        verifier.wait(10)
        states = list((service.data_dir / "verified").glob("*.json"))
        assert states
        for state in states:  # the tenant's, and that of the service's own log
            state.write_text("{}")
        line = service.wait_for_line(NAMED)
        told = json.loads(line)
        assert (told["level"], told["tenant"], told["first_seqs"]["body_mismatch"]) == ("error", "default", size - 1)
        assert "x.y" not in line
        service.wait_for_line(NAMED)  # and again in the next round
        assert chain(service)["last_verified"]["status"] == "broken"
        assert metric(service, "audit_broken_logs") == 1
        assert metric(service, "audit_verified_breaks") >= 1
        said = command(service.data_dir, "verify", "--incremental", "--json")
        assert (said.returncode, json.loads(said.stdout)["checked"]["from_seq"]) == (1, 0)


def test_an_outage_of_the_database_is_waited_for(tmp_path: Path) -> None:
    with start_service(tmp_path / "var", AUDIT_VERIFY_INTERVAL_SECONDS="1") as service:
        size = post(service, 10)
        wait_until(lambda: verified_size(service) >= size, "the log is verified", 30)
        verifier = verifier_of(service)
        assert verifier is not None
        service.postmaster().kill()
        wait_until(lambda: service.answers("/readyz"), "the database is back", 30)
        size = post(service, 10)
        wait_until(lambda: verified_size(service) >= size, "the log is verified again", 40)
        assert verifier_of(service) == verifier  # the same process


def test_it_can_be_switched_off_and_a_command_needs_no_key_given(tmp_path: Path) -> None:
    """Of the keys, what is public goes to the others; a checkpoint by the installation's key counts for its own command."""
    with start_service(
        tmp_path / "var", AUDIT_VERIFY_INTERVAL_SECONDS="0", AUDIT_SIGNING_INTERVAL_SECONDS="1"
    ) as service:
        size = post(service, 10)
        wait_until(lambda: signed_size(service) >= size, "a checkpoint", 30)
        assert verifier_of(service) is None
        assert chain(service)["last_verified"] is None
        note = tmp_path / "note"
        assert command(service.data_dir, "checkpoint", "--out", str(note)).returncode == 0
        said = command(service.data_dir, "verify", "--incremental", "--checkpoint", str(note), "--json")
        report = json.loads(said.stdout)
        assert (said.returncode, report["status"], report["checked"]["from_seq"]) == (0, "ok", 0)
        assert report["checkpoint"]["checkpoints"][0]["signed_by"] == "own"
        seeds = [key["seed"] for key in json.loads((service.data_dir / "signing" / "key.json").read_text())["keys"]]
        assert not any(seed in (service.data_dir / "signing" / "public.json").read_text() for seed in seeds)
