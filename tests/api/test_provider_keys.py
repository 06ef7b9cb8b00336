"""The provider's keys over real HTTP under a clock of the test's own: fetched when need be, seldom, and used no longer than allowed."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from audit_service import provider_keys
from audit_service.errors import InvalidTokenError, ProviderError
from audit_service.provider_keys import ANSWER_LIMIT_BYTES, RETRY_SECONDS, ProviderKeys, is_provider_url
from tests.support.identity import (
    CONFIGURATION,
    KEYS,
    Provider,
    encode,
    good_keys,
    jwk,
    rsa_key,
    running_provider,
    write_certificate,
)

LIFETIME, GRACE, NOW = 300, 3600, 1_800_000_000.0
ACCEPTED = frozenset({"RS256", "ES256", "EdDSA"})


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 5000.0

    def __call__(self) -> float:
        """Now."""
        return self.seconds


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """A provider of the test's own."""
    async with running_provider() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    """The clock of `keys`."""
    return Clock()


@pytest.fixture
async def keys(provider: Provider, clock: Clock) -> AsyncIterator[ProviderKeys]:
    """The keys as a worker keeps them."""
    opened = ProviderKeys(provider.issuer, None, ACCEPTED, lifetime_seconds=LIFETIME, grace_seconds=GRACE, clock=clock)
    yield opened
    await opened.close()


async def has(keys: ProviderKeys, key_id: str) -> bool:
    """Whether there is an RSA key of that name; ProviderError goes through."""
    try:
        await keys.find(key_id, "RS256", NOW)
    except InvalidTokenError:
        return False
    return True


async def test_keys_are_found_by_discovery_and_kept(keys: ProviderKeys, provider: Provider, clock: Clock) -> None:
    """Two questions for all of a lifetime."""
    for _ in range(10):
        assert await has(keys, "rsa")
        clock.seconds += LIFETIME / 10 - 1
    assert provider.asked == {CONFIGURATION: 1, KEYS: 1}


async def test_a_configured_url_needs_no_discovery(provider: Provider, clock: Clock) -> None:
    """It is asked alone."""
    keys = ProviderKeys(
        "https://id.example.com",
        provider.issuer + KEYS,
        ACCEPTED,
        lifetime_seconds=LIFETIME,
        grace_seconds=0,
        clock=clock,
    )
    assert await has(keys, "rsa")
    assert provider.asked == {KEYS: 1}
    await keys.close()


async def test_many_who_need_the_keys_ask_once(keys: ProviderKeys, provider: Provider) -> None:
    """And who goes away while waiting takes nothing from the others."""
    provider.open.clear()
    waiting = [asyncio.create_task(has(keys, "rsa")) for _ in range(50)]
    async with asyncio.timeout(20):
        while not provider.asked:  # noqa: ASYNC110 - the provider is another side of HTTP
            await asyncio.sleep(0.01)
    for task in waiting[:10]:
        task.cancel()
    provider.open.set()
    assert await asyncio.gather(*waiting[10:]) == [True] * 40
    assert provider.asked == {CONFIGURATION: 1, KEYS: 1}


# --- rotation ---


async def test_a_new_key_is_found_at_once(keys: ProviderKeys, provider: Provider, clock: Clock) -> None:
    """Within the lifetime of the old ones, when the last question is long enough ago."""
    assert await has(keys, "rsa")
    provider.keys.append(jwk(rsa_key("new"), "new"))
    clock.seconds += RETRY_SECONDS - 1
    assert not await has(keys, "new")
    clock.seconds += 1
    assert await has(keys, "new")
    assert provider.asked[KEYS] == 2


async def test_a_withdrawn_key_is_good_for_a_lifetime_at_most(
    keys: ProviderKeys, provider: Provider, clock: Clock
) -> None:
    """Counted from the question, also when a worker was idle in between."""
    assert await has(keys, "rsa")
    provider.keys[:] = [jwk(rsa_key("new"), "new")]
    clock.seconds += LIFETIME - 1
    assert await has(keys, "rsa")
    clock.seconds += 1
    assert not await has(keys, "rsa")
    assert await has(keys, "new")


async def test_a_key_that_changes_under_its_name_is_the_new_one(
    keys: ProviderKeys, provider: Provider, clock: Clock
) -> None:
    """After a lifetime."""
    before = await keys.find("rsa", "RS256", NOW)
    provider.keys[:] = [jwk(rsa_key("new"), "rsa")]
    assert await keys.find("rsa", "RS256", NOW) is before
    clock.seconds += LIFETIME
    assert (await keys.find("rsa", "RS256", NOW)).key.public_numbers() == rsa_key("new").public_key().public_numbers()


async def test_a_provider_that_withdraws_every_key_is_believed(
    keys: ProviderKeys, provider: Provider, clock: Clock
) -> None:
    """An empty list is an answer, not a failure that old keys would bridge."""
    assert await has(keys, "rsa")
    provider.keys.clear()
    clock.seconds += LIFETIME
    assert not await has(keys, "rsa")


async def test_unknown_names_ask_seldom(keys: ProviderKeys, provider: Provider, clock: Clock) -> None:
    """A thousand in a hundred seconds: ten questions."""
    assert await has(keys, "rsa")
    for n in range(1000):
        assert not await has(keys, f"made-up-{n}")
        clock.seconds += 0.1
    assert provider.asked[KEYS] <= 1 + 1000 * 0.1 / RETRY_SECONDS


# --- the provider is away ---


async def test_old_keys_bridge_a_failure_for_a_while(keys: ProviderKeys, provider: Provider, clock: Clock) -> None:
    """Up to the bound, to the second; and the provider is asked again all along."""
    assert await has(keys, "rsa")
    provider.answers[KEYS] = (503, {}, b"")
    clock.seconds += LIFETIME
    while clock.seconds < 5000 + LIFETIME + GRACE:
        before = provider.asked[KEYS]
        async with asyncio.timeout(20):
            while provider.asked[KEYS] == before:
                assert await has(keys, "rsa")
                await asyncio.sleep(0.001)  # it is asked in the background
        clock.seconds += RETRY_SECONDS * 10
    with pytest.raises(ProviderError) as refused:
        await has(keys, "rsa")
    assert refused.value.retry_after_seconds == RETRY_SECONDS
    assert provider.asked[KEYS] > GRACE / (RETRY_SECONDS * 10)
    provider.answers.clear()
    clock.seconds += RETRY_SECONDS
    assert await has(keys, "rsa")


async def test_who_has_old_keys_does_not_wait_for_a_provider_that_hangs(
    keys: ProviderKeys, provider: Provider, clock: Clock
) -> None:
    """But for the first, who finds out that it does."""
    assert await has(keys, "rsa")
    provider.answers[KEYS] = (503, {}, b"")
    clock.seconds += LIFETIME
    assert await has(keys, "rsa")
    provider.open.clear()
    clock.seconds += RETRY_SECONDS
    async with asyncio.timeout(provider_keys.FETCH_SECONDS / 2):
        for _ in range(100):
            assert await has(keys, "rsa")


async def test_a_hanging_provider_is_waited_for_a_few_seconds(
    keys: ProviderKeys, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is as good as away. Shortened here."""
    monkeypatch.setattr(provider_keys, "FETCH_SECONDS", 0.2)
    provider.open.clear()
    async with asyncio.timeout(5):
        with pytest.raises(ProviderError):
            await has(keys, "rsa")


async def test_an_unknown_key_of_a_provider_that_is_away_may_be_good(
    keys: ProviderKeys, provider: Provider, clock: Clock
) -> None:
    """503 and not 401: it may have been added just now."""
    assert await has(keys, "rsa")
    provider.answers[KEYS] = (500, {}, b"")
    clock.seconds += RETRY_SECONDS
    with pytest.raises(ProviderError):
        await has(keys, "new")
    assert await has(keys, "rsa")


# --- answers that are none ---

GOOD = encode({"keys": good_keys()})
NO_JSON = [b"", b"{", b"[]", b"null", b"<html>", b"\xff", b'{"keys":5}', b"[" * 9999]
# `$I` stands for the issuer.
BAD_CONFIGURATIONS: list[dict[str, Any]] = [
    {}, {"issuer": "$I"}, {"jwks_uri": f"$I{KEYS}"}, {"issuer": "$I/", "jwks_uri": f"$I{KEYS}"}, {"issuer": ["$I"],
    "jwks_uri": f"$I{KEYS}"},
    {"issuer": "https://id.example.com", "jwks_uri": f"$I{KEYS}"}, {"issuer": "$I", "jwks_uri": KEYS}, {"issuer": "$I", "jwks_uri": None},
    {"issuer": "$I", "jwks_uri": "http://id.example.com/keys"}, {"issuer": "$I", "jwks_uri": "file:///keys"},
    {"issuer": "$I", "jwks_uri": [f"$I{KEYS}"]}, {"issuer": "$I", "jwks_uri": f"$I{KEYS}#x"},
]  # fmt: skip
BAD_ANSWERS: list[tuple[str, int, dict[str, str], bytes]] = [
    *((path, status, {}, GOOD) for path in (KEYS, CONFIGURATION) for status in (201, 204, 400, 404, 500, 503)),
    *((path, status, {"location": "/elsewhere"}, GOOD) for path in (KEYS, CONFIGURATION) for status in (301, 302, 303, 307, 308)),
    *((path, 200, {}, body) for path in (KEYS, CONFIGURATION) for body in NO_JSON),
    *((CONFIGURATION, 200, {}, encode(document)) for document in BAD_CONFIGURATIONS),
    (KEYS, 200, {"content-encoding": "gzip"}, gzip.compress(GOOD)),
    (KEYS, 200, {}, GOOD + b" " * ANSWER_LIMIT_BYTES),
    (KEYS, 200, {}, encode({"keys": good_keys() * 40})),
]  # fmt: skip


@pytest.mark.parametrize(("path", "status", "headers", "body"), BAD_ANSWERS, ids=range(len(BAD_ANSWERS)))
async def test_a_bad_answer_is_no_answer(
    keys: ProviderKeys, provider: Provider, clock: Clock, path: str, status: int, headers: dict[str, str], body: bytes
) -> None:
    """Nothing of it is used, no redirect is followed, and the next good answer counts."""
    provider.answers[path] = (status, headers, body.replace(b"$I", provider.issuer.encode()))
    with pytest.raises(ProviderError):
        await has(keys, "rsa")
    assert provider.asked.keys() <= {CONFIGURATION, KEYS}
    provider.answers.clear()
    clock.seconds += RETRY_SECONDS
    assert await has(keys, "rsa")


async def test_an_endless_answer_is_cut(keys: ProviderKeys, provider: Provider) -> None:
    """At the limit, not at the end of the time."""
    provider.endless = True
    async with asyncio.timeout(provider_keys.FETCH_SECONDS / 2):
        with pytest.raises(ProviderError):
            await has(keys, "rsa")


# --- over TLS ---


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[Provider]:
    """A provider over TLS, with a certificate of its own beside its name."""
    write_certificate(tmp_path / "id.pem")
    async with running_provider(tmp_path / "id.pem") as running:
        yield running


async def secure_keys(secure: Provider, clock: Clock) -> bool:
    """Whether the keys of a provider over TLS are had."""
    keys = ProviderKeys(secure.issuer, None, ACCEPTED, lifetime_seconds=LIFETIME, grace_seconds=GRACE, clock=clock)
    try:
        return await has(keys, "rsa")
    except ProviderError:
        return False
    finally:
        await keys.close()


async def test_a_provider_without_a_trusted_certificate_is_not_believed(
    secure: Provider, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE adds an authority of one's own."""
    assert not await secure_keys(secure, clock)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "id.pem"))
    assert await secure_keys(secure, clock)


async def test_an_issuer_over_tls_does_not_lead_to_plain_http(
    secure: Provider, provider: Provider, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even of this host: that would be our neighbour's door. Control: to another door over TLS it does."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "id.pem"))
    for url, expected in ((provider.issuer + KEYS, False), (secure.issuer + KEYS, True)):
        secure.answers[CONFIGURATION] = (200, {}, encode({"issuer": secure.issuer, "jwks_uri": url}))
        assert await secure_keys(secure, clock) is expected
    assert not provider.asked


GOOD_URLS = [
    "https://id.example.com", "https://id.example.com:8443/realms/x", "HTTPS://id.example.com", "http://localhost:8080",
    "http://127.0.0.1/x", "http://[::1]:1/",
]  # fmt: skip
BAD_URLS = [
    "", "https://", "http://id.example.com", "http://localhost.", "http://127.0.0.2", "http://localhost@evil.example", "https://a:b@c", "https://[::1",
    "https://id.example.com:0", "https://id.example.com:99999", "https://id.example.com/ x", "https://id.example.com\n",
    "https://é.example", "https://a\\b",
    "javascript:x", "//a",
]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "expected"), [*((url, True) for url in GOOD_URLS), *((url, False) for url in BAD_URLS)]
)
def test_a_provider_is_reached_over_https_or_on_this_host(url: str, expected: bool) -> None:
    """Anything else could be read or answered by others on the way."""
    assert is_provider_url(url) is expected
