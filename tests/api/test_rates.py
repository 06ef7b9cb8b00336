"""One key or one address cannot take a worker from the others: 429 with what is left and when to come again."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event

from audit_service.api import download
from audit_service.api.rates import Rates, Turns
from audit_service.app import create_app
from audit_service.core.api_key import format_key, key_hash
from audit_service.core.places import WAITING_PER_KEY
from audit_service.errors import RateLimitedError
from audit_service.settings import Settings
from tests.support.api import Api
from tests.support.apps import add_key, open_api
from tests.support.credentials import ask, issue_token
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase, default_log_id
from tests.support.serving import served


class Clock:
    """A clock that stands until it is told to go on."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def limited(database: TestDatabase, **settings: Any) -> AsyncIterator[tuple[Api, Clock]]:
    """The app with limits, and the clock they go by."""
    async with open_api(database, **settings) as api:
        clock = Clock()
        api.service.rates = Rates(api.service.settings, clock)
        yield api, clock


def refused(response: httpx.Response, policy: str, seconds: int) -> bool:
    """Whether it is the 429 of a policy; fails when it is one, and not as it should be."""
    if response.status_code != 429:
        return False
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == str(seconds)
    body = response.json()
    assert (body["type"], body["status"]) == ("urn:audit-service:problem:rate-limited", 429)
    assert body["violated-policies"] == [policy]
    return True


async def test_requests_of_a_key_run_out_and_come_back(module_database: TestDatabase) -> None:
    async with limited(module_database, rate_limit_requests_per_second=1) as (api, clock):
        answers = [await api.client.get("/v1/chain") for _ in range(11)]
        assert [answer.status_code for answer in answers] == [200] * 10 + [429]
        assert answers[0].headers["ratelimit-policy"] == '"requests";q=10;w=10'
        assert answers[0].headers["ratelimit"] == '"requests";r=9;t=1'
        assert answers[9].headers["ratelimit"] == '"requests";r=0;t=10'
        assert refused(answers[10], "requests", 1)
        assert answers[10].headers["ratelimit"] == '"requests";r=0;t=10'
        clock.now += 1.0
        assert (await api.client.get("/v1/chain")).status_code == 200
        assert refused(await api.client.get("/v1/chain"), "requests", 1)


async def test_events_and_requests_are_counted_apart(module_database: TestDatabase) -> None:
    async with limited(module_database, rate_limit_events_per_second=1, rate_limit_requests_per_second=1) as (api, _):
        posts = [await api.post({"action": "x"}) for _ in range(11)]
        assert [post.status_code for post in posts] == [201] * 10 + [429]
        assert posts[3].headers["ratelimit"] == '"events";r=6;t=4'
        assert refused(posts[10], "events", 1)
        assert (await api.client.get("/v1/chain")).status_code == 200


async def test_a_batch_is_counted_by_its_events_and_refused_as_a_whole(module_database: TestDatabase) -> None:
    async with limited(module_database, rate_limit_events_per_second=10) as (api, clock):
        before = (await api.client.get("/v1/chain")).json()["size"]
        answer = await api.post([{"action": "x"}] * 60)
        assert (answer.status_code, answer.headers["ratelimit"]) == (201, '"events";r=40;t=6')
        for _ in range(3):  # what was refused took nothing
            assert refused(await api.post([{"action": "x"}] * 60), "events", 2)
        assert (await api.client.get("/v1/chain")).json()["size"] == before + 60
        clock.now += 2
        assert (await api.post([{"action": "x"}] * 60)).status_code == 201


async def test_a_batch_of_more_than_a_bucket_holds_passes_when_it_is_full(module_database: TestDatabase) -> None:
    """Else it never could. It leaves a debt."""
    async with limited(module_database, rate_limit_events_per_second=1) as (api, clock):
        batch = [{"action": "x"}] * 25
        assert (await api.post({"action": "x"})).status_code == 201
        assert refused(await api.post(batch), "events", 1)
        clock.now += 1
        assert (await api.post(batch)).status_code == 201
        assert refused(await api.post({"action": "x"}), "events", 16)


async def test_a_stream_is_slowed_and_not_refused(module_database: TestDatabase) -> None:
    async with open_api(module_database, rate_limit_events_per_second=400) as api:
        lines = b"".join(json.dumps({"action": "x", "metadata": {"n": n}}).encode() + b"\n" for n in range(4400))
        began = asyncio.get_running_loop().time()
        answer = await api.client.post("/v1/events", content=lines, headers={"Content-Type": "application/x-ndjson"})
        seconds = asyncio.get_running_loop().time() - began
        assert json.loads(answer.text.splitlines()[-1]) == {
            "trailer": True, "accepted": 4400, "rejected": 0, "complete": True,
        }  # fmt: skip
        assert seconds >= 0.9  # 4000 pass at once, 400 take a second


async def test_an_adapters_records_are_events(module_database: TestDatabase) -> None:
    async with limited(module_database, rate_limit_events_per_second=1) as (api, _):
        body = "\n".join(json.dumps({"event": {"n": n}}) for n in range(8))
        answers = [await api.client.post("/services/collector/event", content=body) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert answers[1].headers["retry-after"] == "6"


async def test_one_key_does_not_pay_for_another(database: TestDatabase) -> None:
    async with limited(database, rate_limit_requests_per_second=1) as (api, _):
        for _ in range(10):
            await api.client.get("/v1/chain")
        assert (await api.client.get("/v1/chain")).status_code == 429
        other = await add_key(database, await default_log_id(database))
        answer = await api.client.get("/v1/chain", headers={"Authorization": f"Bearer {other}"})
        assert answer.status_code == 200


@pytest.mark.parametrize("authorization", [None, "Bearer short", "Basic eDp5", f"Bearer {format_key(bytes(32))}"])
async def test_too_much_without_a_good_credential_is_refused_by_address(
    module_database: TestDatabase, authorization: str | None
) -> None:
    async with limited(module_database, rate_limit_address_per_second=1) as (api, clock):
        key = api.client.headers.pop("authorization")
        headers = {} if authorization is None else {"Authorization": authorization}
        answers = [await api.client.get("/v1/chain", headers=headers) for _ in range(11)]
        assert [answer.status_code for answer in answers] == [401] * 10 + [429]
        assert refused(answers[10], "address", 1)
        assert (await api.client.post("/v1/events", json={}, headers=headers)).status_code == 429
        assert (await api.client.post("/services/collector/event", headers=headers)).status_code == 429
        # whoever stands behind the same address with a good key was not seen before, and waits; health is always told
        assert (await api.client.get("/v1/chain", headers={"Authorization": key})).status_code == 429
        assert (await api.client.get("/healthz")).status_code == 200
        clock.now += 1.0
        assert (await api.client.get("/v1/chain", headers={"Authorization": key})).status_code == 200


async def test_a_key_that_was_good_before_is_not_refused_for_its_neighbours(module_database: TestDatabase) -> None:
    async with limited(module_database, rate_limit_address_per_second=1) as (api, _):
        assert (await api.client.get("/v1/chain")).status_code == 200
        wrong = {"Authorization": f"Bearer {format_key(bytes(32))}"}
        for _ in range(20):
            last = await api.client.get("/v1/chain", headers=wrong)
        assert last.status_code == 429
        assert (await api.client.get("/v1/chain")).status_code == 200
        for digest, (_, credential) in api.service._credentials.items():
            api.service._credentials[digest] = (0.0, credential)  # a second later: it is looked up again
        assert (await api.client.get("/v1/chain")).status_code == 200


PUBLIC = ("/readyz", "/metrics", "/openapi.json", "/docs", "/nothing", "/v1/nothing", "/tlog/x/checkpoint")


@pytest.mark.parametrize("path", PUBLIC)
@pytest.mark.parametrize("authorization", [None, "x", "Bearer x", f"Bearer {BOOTSTRAP_KEY}"])
async def test_public_pages_are_limited_by_address(
    module_database: TestDatabase, path: str, authorization: str | None
) -> None:
    """Whatever is sent along: nobody looks at it, so it is no credential."""
    async with limited(module_database, rate_limit_address_per_second=1, tlog_public=True) as (api, _):
        del api.client.headers["authorization"]
        headers = {} if authorization is None else {"Authorization": authorization}
        answers = [await api.client.get(path, headers=headers) for _ in range(11)]
        assert 429 not in {answer.status_code for answer in answers[:10]}
        assert refused(answers[10], "address", 1)
        assert answers[0].headers["ratelimit"] == '"address";r=9;t=1'


@pytest.mark.parametrize(("path", "settings"), [("/readyz", {}), ("/tlog/x/checkpoint", {"tlog_public": True})])
async def test_what_is_open_to_all_is_counted_before_it_is_made(
    module_database: TestDatabase, path: str, settings: dict[str, Any]
) -> None:
    """Over the limit the database is not asked: the answer is 429 even where it cannot be reached."""
    async with limited(module_database, rate_limit_address_per_second=1, **settings) as (api, _):
        api.client.headers["authorization"] = "x"
        for _ in range(10):
            await api.client.get("/nothing")
        asked: list[str] = []
        event.listen(Engine, "before_cursor_execute", listener := lambda *args: asked.append(args[2]))
        try:
            assert refused(await api.client.get(path), "address", 1)
        finally:
            event.remove(Engine, "before_cursor_execute", listener)
        assert asked == []


async def test_a_malformed_request_is_counted_by_its_address(module_database: TestDatabase) -> None:
    async with limited(module_database, rate_limit_address_per_second=1) as (api, _):
        twice = [("Authorization", "x"), ("Authorization", "y")]
        statuses = [(await api.client.post("/v1/events", headers=twice)).status_code for _ in range(11)]
        assert statuses == [400] * 10 + [429]


async def test_good_credentials_leave_the_address_its_tokens(module_database: TestDatabase) -> None:
    """A key, whatever the answer; the metrics key; and what failed for us alone."""
    limits: dict[str, Any] = {"rate_limit_address_per_second": 1, "metrics_key": "m" * 32}
    async with limited(module_database, **limits) as (api, _):
        scraper = {"Authorization": f"Bearer {'m' * 32}"}
        reader = await add_key(module_database, await default_log_id(module_database), ["read"])
        for _ in range(12):
            assert (await api.client.get("/v1/events/nothing")).status_code == 404
            assert (await api.client.get("/v1/events?nothing=1")).status_code == 400
            assert (await ask(api, "GET", "/v1/keys", reader)).status_code == 403
            assert (await api.client.get("/metrics", headers=scraper)).status_code == 200
        left = await api.client.get("/nothing", headers={"Authorization": "x"})
        assert left.headers["ratelimit"] == '"address";r=9;t=1'


async def test_an_orchestrators_probes_are_answered(module_database: TestDatabase) -> None:
    """Thirty a second of both from one address, for six seconds, at the limit that is the default."""
    async with limited(module_database) as (api, clock):
        del api.client.headers["authorization"]
        for _ in range(60):
            statuses = {(await api.client.get(path)).status_code for path in ("/healthz", "/readyz") for _ in range(3)}
            assert statuses == {200}
            clock.now += 1 / 10


async def test_addresses_behind_a_trusted_proxy_are_told_apart(module_database: TestDatabase) -> None:
    async with limited(module_database, rate_limit_address_per_second=1, trusted_proxies="127.0.0.0/8") as (api, _):
        del api.client.headers["authorization"]

        async def status(forwarded: str) -> int:
            return (await api.client.get("/nothing", headers={"X-Forwarded-For": forwarded})).status_code

        for number in range(10):
            assert await status(f"198.51.100.{number}, 203.0.113.1") == 404
        assert await status("198.51.100.99, 203.0.113.1") == 429
        assert await status("203.0.113.2") == 404
        for number in range(10):  # one subscriber has a whole /64
            assert await status(f"2001:db8::{number}") == 404
        assert await status("2001:db8::ff:ff") == 429
        assert await status("2001:db8:0:1::1") == 404


async def test_zero_is_no_limit(module_database: TestDatabase) -> None:
    off: dict[str, Any] = dict.fromkeys(
        ("rate_limit_events_per_second", "rate_limit_requests_per_second", "rate_limit_address_per_second"), 0
    )
    async with open_api(module_database, **off) as api:
        for _ in range(20):
            answer = await api.client.get("/v1/chain")
            assert answer.status_code == 200
            assert "ratelimit" not in answer.headers
            assert (await api.client.get("/v1/chain", headers={"Authorization": "Bearer x"})).status_code == 401


def test_each_worker_grants_its_share() -> None:
    rates = Rates(Settings(workers=4, rate_limit_requests_per_second=10))
    assert rates.requests is not None
    assert (rates.requests.per_second, rates.requests.capacity) == (2.5, 25)


async def test_a_verification_needs_a_place_and_gives_it_back(module_database: TestDatabase) -> None:
    async with open_api(module_database) as api:
        service = api.service
        credential = await service.credential(api.client.headers["authorization"].removeprefix("Bearer "))
        assert credential is not None
        with service.verifies.take(credential.log_id, credential.key_id):
            assert refused(await api.client.get("/v1/chain/verify"), "verifications", 5)
            with service.verifies.take(-1, "another"):
                assert service.verifies.taken == service.settings.verifies_limit == 2
        with service.verifies.take(-1, "a"), service.verifies.take(-2, "b"):
            busy = await api.client.get("/v1/chain/verify")
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "5")
        assert (await api.verify())["status"] == "ok"
        assert service.verifies.taken == 0


async def test_exports_and_evidence_share_their_places(module_database: TestDatabase) -> None:
    async with open_api(module_database, exports_limit_per_key=1) as api:
        credential = await api.service.credential(api.client.headers["authorization"].removeprefix("Bearer "))
        assert credential is not None
        with api.service.exports.take(credential.log_id, credential.key_id):
            assert refused(await api.client.get("/v1/export"), "exports", 5)
        assert (await api.client.get("/v1/export")).status_code == 200
        assert api.service.exports.taken == 0


async def test_who_waits_for_a_place_gets_the_one_that_becomes_free(
    module_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PATIENCE_SECONDS", (60.0, 60.0))
    async with open_api(module_database, exports_limit_per_key=1) as api:
        credential = await api.service.credential(api.client.headers["authorization"].removeprefix("Bearer "))
        assert credential is not None
        with api.service.exports.take(credential.log_id, credential.key_id):
            waiting = asyncio.ensure_future(api.client.get("/v1/export"))
            async with asyncio.timeout(20):
                while not api.service.exports.waiting:  # noqa: ASYNC110 - it tells nobody that it waits
                    await asyncio.sleep(0.01)
            assert not waiting.done()
        assert (await waiting).status_code == 200
        assert api.service.exports.taken == 0


async def test_only_so_many_of_one_key_wait_for_a_place(module_database: TestDatabase) -> None:
    async with open_api(module_database, exports_limit_per_key=1) as api, AsyncExitStack() as waiting:
        credential = await api.service.credential(api.client.headers["authorization"].removeprefix("Bearer "))
        assert credential is not None
        of_key = (credential.log_id, credential.key_id)
        with api.service.exports.take(*of_key):
            for _ in range(WAITING_PER_KEY):
                waiting.enter_context(api.service.exports.queue(*of_key, RateLimitedError("x", "x", 1)))
            began = asyncio.get_running_loop().time()
            assert refused(await api.client.get("/v1/export"), "exports", 5)
            assert asyncio.get_running_loop().time() - began < download.PATIENCE_SECONDS[0]
            with api.service.exports.queue(credential.log_id, "another", RateLimitedError("x", "x", 1)):
                assert api.service.exports.waiting == WAITING_PER_KEY + 1


async def test_who_has_gone_takes_no_place(module_database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PATIENCE_SECONDS", (60.0, 60.0))
    async with served(module_database, exports_limit_per_key=1) as opened:
        service = opened.api.service
        credential = await service.credential(BOOTSTRAP_KEY)
        assert credential is not None
        with service.exports.take(credential.log_id, credential.key_id):
            async with opened.wire() as wire, asyncio.timeout(20):
                head = f"GET /v1/export HTTP/1.1\r\nHost: audit.test\r\nAuthorization: Bearer {BOOTSTRAP_KEY}\r\n\r\n"
                await wire.send(head.encode())
                while not service.exports.waiting:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.01)
                wire.abort()
                while service.exports.waiting:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert service.exports.taken == 1


async def test_a_viewer_takes_nothing_from_other_viewers_nor_from_their_panel(module_database: TestDatabase) -> None:
    """Whoever holds a token asks as fast as a browser can; the panel goes on issuing tokens, and another viewer reads."""
    limits = {"exports_limit_per_key": 1, "rate_limit_requests_per_second": 3}
    async with limited(module_database, rate_limit_viewer_requests_per_second=2, **limits) as (api, clock):
        panel = await add_key(module_database, await default_log_id(module_database))
        greedy, other = [(await issue_token(api, panel, export=True))["token"] for _ in "ab"]
        statuses = [(await ask(api, "GET", "/v1/events", greedy)).status_code for _ in range(21)]
        assert statuses == [200] * 20 + [429]
        assert refused(await ask(api, "GET", "/v1/chain", greedy), "requests", 1)  # what it may not is counted, too
        answers = [await ask(api, "GET", "/v1/events", key) for key in (other, panel)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert [answer.headers["ratelimit-policy"] for answer in answers] == [
            '"requests";q=20;w=10',
            '"requests";q=30;w=10',
        ]
        await issue_token(api, panel)
        clock.now += 100
        found = await api.service.credential(greedy)
        assert found is not None
        with api.service.exports.take(found.log_id, found.key_id):
            assert refused(await ask(api, "GET", "/v1/export", greedy), "exports", 5)
            for key in (other, panel):
                assert (await ask(api, "GET", "/v1/export", key)).status_code == 200


async def test_long_reads_of_one_key_take_turns_and_leave_the_others_theirs() -> None:
    turns = Turns(2, patience_seconds=0.05)
    async with turns.take("a"), turns.take("a"):
        with pytest.raises(RateLimitedError):
            async with turns.take("a"):
                pass
        async with turns.take("b"):
            pass
        waiting = asyncio.ensure_future(_hold(Turns(1)))
        assert await waiting == ["first", "second"]
    async with turns.take("a"):
        assert len(turns._queues) == 1
    assert not turns._queues


async def _hold(turns: Turns) -> list[str]:
    """Two of one key: the second waits for the first."""
    order: list[str] = []
    inside = asyncio.Event()

    async def first() -> None:
        async with turns.take("a"):
            inside.set()
            await asyncio.sleep(0)
            order.append("first")

    async def second() -> None:
        await inside.wait()
        async with turns.take("a"):
            order.append("second")

    await asyncio.gather(first(), second())
    return order


async def test_many_reads_at_once_are_all_answered(module_database: TestDatabase) -> None:
    async with open_api(module_database, reads_limit_per_key=1) as api:
        answers = await asyncio.gather(*(api.client.get("/v1/events") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}


async def test_a_key_has_one_queue_however_it_is_sent(module_database: TestDatabase) -> None:
    async with open_api(module_database, reads_limit_per_key=1) as api:
        turns = api.service.turns = Turns(1, patience_seconds=0.05)
        key = api.client.headers["authorization"].removeprefix("Bearer ")
        async with turns.take(key_hash(key)):
            for sent in (f"Bearer {key}", f"bearer {key}", f"BEARER   {key}", f"Bearer {key} "):
                answer = await api.client.get("/v1/events", headers={"Authorization": sent})
                assert (answer.status_code, len(turns._queues)) == (429, 1)
        assert (await api.client.get("/v1/events")).status_code == 200


async def test_a_statement_that_takes_too_long_is_a_problem_and_no_error(database: TestDatabase) -> None:
    async with open_api(database, statement_timeout_seconds=1) as api:
        owner = await database.owner()
        async with owner.transaction():
            await owner.execute("LOCK TABLE audit.entry IN ACCESS EXCLUSIVE MODE")
            answer = await api.client.get("/v1/events")
        await owner.close()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["type"] == "urn:audit-service:problem:unavailable"
        assert answer.json()["detail"] == "the query took too long; narrow it"
        assert (await api.client.get("/v1/events")).status_code == 200


def test_an_app_without_a_database_has_its_limits() -> None:
    app = create_app(Settings(database_url="postgresql://unused"))
    assert app.state.service.rates.events.capacity == 200_000
