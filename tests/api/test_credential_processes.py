"""Keys and tokens across worker processes, which share nothing but the database: what one takes away, all refuse within a second."""

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase
from tests.support.served import served

# A worker believes what it read for one second; the rest is the time of the last answer, and of a busy machine.
LIMIT_SECONDS = 1.0
SLACK_SECONDS = 0.4


@pytest.fixture
def workers(database: TestDatabase) -> Iterator[list[httpx.Client]]:
    """Clients of two processes."""
    with served(database, 2) as urls:
        clients = [httpx.Client(base_url=url, trust_env=False) for url in urls]
        yield clients
        for client in clients:
            client.close()


def bearer(key: str) -> dict[str, str]:
    """The header."""
    return {"Authorization": f"Bearer {key}"}


def test_what_is_revoked_at_one_worker_is_refused_by_all_within_a_second(workers: list[httpx.Client]) -> None:
    """A key, a token, and a token through its key, while every worker is asked without a pause and so has them in its cache; and none of
    them comes back, although each use is noted."""
    first = workers[0]
    body = {"name": "x", "scopes": ["viewer", "read"]}
    keys = [
        first.post("/v1/keys", json=body, headers=bearer(BOOTSTRAP_KEY)).raise_for_status().json() for _ in range(2)
    ]
    tokens = [
        first.post("/v1/viewer-tokens", json={"server_ids": "all"}, headers=bearer(key["key"]))
        .raise_for_status()
        .json()
        for key in keys
    ]
    for path, ended in (
        (f"/v1/viewer-tokens/{tokens[0]['token_id']}", [tokens[0]["token"]]),
        (f"/v1/keys/{keys[1]['key_id']}", [keys[1]["key"], tokens[1]["token"]]),
    ):
        for client in workers:
            for credential in ended:
                assert client.get("/v1/events", headers=bearer(credential)).status_code == 200
        assert first.delete(path, headers=bearer(BOOTSTRAP_KEY)).status_code == 204
        revoked_at = time.monotonic()
        last_good = revoked_at
        while time.monotonic() - revoked_at < 2 * LIMIT_SECONDS:
            for client in workers:
                for credential in ended:
                    asked_at = time.monotonic()
                    if client.get("/v1/events", headers=bearer(credential)).status_code == 200:
                        last_good = asked_at
        assert last_good - revoked_at < LIMIT_SECONDS + SLACK_SECONDS
    # What was not revoked is as good as before.
    assert {client.get("/v1/events", headers=bearer(keys[0]["key"])).status_code for client in workers} == {200}


def test_a_key_that_is_used_while_it_is_revoked_stays_revoked(workers: list[httpx.Client]) -> None:
    """The first use at each worker notes the time: a write to the row that another has just revoked."""
    for _ in range(10):
        created = (
            workers[0]
            .post("/v1/keys", json={"name": "x", "scopes": ["read"]}, headers=bearer(BOOTSTRAP_KEY))
            .raise_for_status()
            .json()
        )
        workers[0].delete(f"/v1/keys/{created['key_id']}", headers=bearer(BOOTSTRAP_KEY))
        workers[1].get("/v1/events", headers=bearer(created["key"]))
        listed = workers[0].get("/v1/keys", headers=bearer(BOOTSTRAP_KEY)).json()["keys"]
        assert [key["revoked_at"] is not None for key in listed if key["key_id"] == created["key_id"]] == [True]
        assert workers[1].get("/v1/events", headers=bearer(created["key"])).status_code == 401


def test_a_token_of_one_worker_is_good_at_every_other(workers: list[httpx.Client]) -> None:
    """At once: nothing of it is kept in the process that issued it."""
    for client in workers:
        issued = client.post("/v1/viewer-tokens", json={"server_ids": "all"}, headers=bearer(BOOTSTRAP_KEY)).json()
        for other in workers:
            assert other.get("/v1/events", headers=bearer(issued["token"])).status_code == 200
