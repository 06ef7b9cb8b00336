"""Key sets: which keys are used, which are left out, and which of them is a token's."""

import json
from math import inf
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core.key_set import KEYS_LIMIT, parse_key_set
from audit_service.core.token import ALGORITHMS
from audit_service.errors import InvalidTokenError, ProviderError
from tests.support.forgeries import weak_keys
from tests.support.identity import b64, ec_key, ed_key, good_keys, jwk, rsa_key

ACCEPTED = frozenset({"RS256", "ES256", "EdDSA"})
NOW = 1_800_000_000.0


def usable(*keys: Any, algorithms: frozenset[str] = ACCEPTED) -> list[tuple[str | None, str]]:
    """(kid, algorithm) of the keys that are used."""
    return [(key.key_id, key.algorithm) for key in parse_key_set(json.dumps({"keys": keys}).encode(), algorithms).keys]


def test_good_keys_are_used() -> None:
    """One of each kind, each for its algorithm."""
    assert usable(*good_keys()) == [("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA")]


def test_a_key_signs_with_whatever_fits_it_and_is_accepted() -> None:
    """Unless it says with what."""
    assert sorted(usable(jwk(rsa_key(), "k"), algorithms=ALGORITHMS)) == [
        ("k", name) for name in ("PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
    ]
    assert usable(jwk(rsa_key(), "k", alg="PS384"), algorithms=ALGORITHMS) == [("k", "PS384")]
    assert usable(jwk(ec_key("p384", ec.SECP384R1), "k"), algorithms=ALGORITHMS) == [("k", "ES384")]
    assert usable(jwk(ec_key("p521", ec.SECP521R1), "k"), algorithms=ALGORITHMS) == [("k", "ES512")]
    assert usable(jwk(ec_key("p384", ec.SECP384R1), "k")) == []


RSA, EC, ED = jwk(rsa_key(), "k"), jwk(ec_key(), "k"), jwk(ed_key(), "k")
LEFT_OUT: list[Any] = [
    None, 5, "key", [], {}, {"kty": 5}, {"kty": ["RSA"]}, {"kty": "XYZ"}, {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
    RSA | {"kty": "rsa"}, RSA | {"kty": "EC"}, RSA | {"crv": "P-256"}, RSA | {"crv": {}}, EC | {"crv": "P-384"}, EC | {"crv": "p-256"},
    EC | {"crv": None}, EC | {"crv": "secp256k1"}, ED | {"crv": "X25519"}, ED | {"crv": "Ed448"}, RSA | {"use": "enc"},
    RSA | {"use": ["sig"]}, RSA | {"use": None}, RSA | {"key_ops": ["sign"]}, RSA | {"key_ops": []}, RSA | {"key_ops": "verify"},
    RSA | {"alg": "RSA-OAEP"}, RSA | {"alg": "HS256"}, RSA | {"alg": "none"}, RSA | {"alg": "ES256"}, RSA | {"alg": ["RS256"]},
    RSA | {"alg": None}, EC | {"alg": "RS256"}, RSA | {"d": "AQAB"}, RSA | {"p": "AQAB"}, EC | {"d": "AQAB"}, ED | {"d": None},
    RSA | {"k": "c2VjcmV0"}, RSA | {"n": None}, RSA | {"n": ""}, RSA | {"n": 5}, RSA | {"n": RSA["n"] + "="}, RSA | {"n": "+/"},
    RSA | {"e": ""}, {"kty": "RSA", "n": RSA["n"]}, EC | {"x": EC["y"]}, EC | {"y": EC["x"]},
    EC | {"x": b64(bytes(32)), "y": b64(bytes(32))}, EC | {"x": b64(b"\xff" * 32)}, EC | {"x": EC["x"][:-2]}, EC | {"y": None},
    ED | {"x": "AA"}, RSA | {"kid": 5}, RSA | {"kid": ""}, RSA | {"kid": "x" * 257}, RSA | {"kid": {}},
    RSA | {"revoked": {"revoked_at": 1}}, RSA | {"exp": "never"}, RSA | {"exp": None}, RSA | {"nbf": True}, RSA | {"exp": 10**400},
    jwk(rsa_key("weak", 1024), "k"), jwk(rsa_key("almost", 2040), "k"), *weak_keys().values(),
]  # fmt: skip


@pytest.mark.parametrize("key", LEFT_OUT, ids=range(len(LEFT_OUT)))  # keys are random: no names for tests
def test_a_doubtful_key_is_left_out_and_the_others_stay(key: Any) -> None:
    """The invalid, weak, private, revoked, and those for something else; they are counted."""
    found = parse_key_set(json.dumps({"keys": [key, *good_keys()]}).encode(), ACCEPTED)
    assert [found_key.key_id for found_key in found.keys] == ["rsa", "ec", "ed"]
    assert found.left_out == 1


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"5", b"null", b"{}", b'{"keys":{}}', b'{"keys":null}', b'{"keys":[],"keys":[]}', b"\xff", b"<html>", b"[" * 5000,
     json.dumps({"keys": [RSA] * (KEYS_LIMIT + 1)}).encode()],
)  # fmt: skip
def test_what_is_no_key_set_is_the_provider_s_error(data: bytes) -> None:
    """Not the same as a provider without keys."""
    with pytest.raises(ProviderError):
        parse_key_set(data, ACCEPTED)


def test_as_many_keys_as_the_limit_are_read() -> None:
    """And none at all, which withdraws every key."""
    assert len(parse_key_set(json.dumps({"keys": [EC] * KEYS_LIMIT}).encode(), ACCEPTED).keys) == KEYS_LIMIT
    assert parse_key_set(b'{"keys":[]}', ACCEPTED).keys == ()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*RSA, *EC, "use", "exp"]), inner),
    )
)
def test_no_json_is_an_unplanned_error(value: Any) -> None:
    """Alone, as a key, or laid over a good key."""
    for keys in (value, [value], [RSA | value] if isinstance(value, dict) else []):
        try:
            parse_key_set(json.dumps({"keys": keys}).encode(), ACCEPTED)
        except ProviderError:
            assert not isinstance(keys, list)


def found(keys: list[Any], key_id: str | None, algorithm: str = "RS256", now: float = NOW) -> bool:
    """Whether there is a key."""
    return parse_key_set(json.dumps({"keys": keys}).encode(), ACCEPTED).find(key_id, algorithm, now) is not None


def test_a_key_is_found_by_its_whole_name_and_algorithm() -> None:
    """And not by anything near it."""
    assert found(good_keys(), "rsa")
    for key_id, algorithm in (
        ("rs", "RS256"),
        ("RSA", "RS256"),
        ("rsa ", "RS256"),
        ("rsa", "ES256"),
        ("ec", "RS256"),
        ("%", "RS256"),
        ("", "RS256"),
    ):
        assert not found(good_keys(), key_id, algorithm)


def test_without_a_name_only_the_single_key_of_its_algorithm_is_found() -> None:
    """Two would be a guess."""
    assert found(good_keys(), None)
    with pytest.raises(InvalidTokenError):
        found([*good_keys(), jwk(rsa_key("other"), "other")], None)
    assert not found([EC], None)
    assert not found([jwk(rsa_key())], "rsa"), "a key without a name is not everybody's"


def test_two_keys_under_one_name_decide_nothing() -> None:
    """The same key twice is one key; of different algorithms, each is found by its own."""
    with pytest.raises(InvalidTokenError):
        found([RSA, jwk(rsa_key("other"), "k")], "k")
    assert found([RSA, RSA | {"use": "sig"}], "k")
    assert found([RSA, EC], "k")
    assert found([RSA, jwk(rsa_key("weak", 1024), "k")], "k"), "one that is left out does not shadow another"


TIMES: list[tuple[dict[str, float], bool]] = [
    ({}, True), ({"exp": NOW + 1}, True), ({"exp": NOW}, False), ({"exp": NOW - 1}, False), ({"exp": 0}, False),
    ({"nbf": NOW}, True), ({"nbf": NOW + 1}, False),
]  # fmt: skip


@pytest.mark.parametrize(("times", "expected"), TIMES)
def test_a_key_has_its_time(times: dict[str, float], expected: bool) -> None:
    """Half-open; expired keys are none."""
    assert found([RSA | times], "k") is expected


def test_the_second_key_takes_over_when_the_first_expires() -> None:
    """Under the same name."""
    keys = [RSA | {"exp": NOW}, jwk(rsa_key("other"), "k", nbf=NOW)]
    parsed = parse_key_set(json.dumps({"keys": keys}).encode(), ACCEPTED)
    before, after = parsed.find("k", "RS256", NOW - 1), parsed.find("k", "RS256", NOW)
    assert before is not None
    assert after is not None
    assert before is not after
    assert parsed.keys[1].ends_at == inf
