"""The envelope of a JWT: what is read, what is refused, and that no bytes at all are an unplanned error."""

import contextlib
import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwt import PyJWK

from audit_service.core import token
from audit_service.core.token import (
    TOKEN_CHARACTERS,
    check_signature,
    decode_base64url,
    looks_like_token,
    parse_claims,
    parse_time,
    parse_token,
    parse_type,
)
from audit_service.errors import InvalidTokenError
from tests.support.identity import PrivateKey, b64, ec_key, ed_key, encode, jwk, rsa_key, signed

ACCEPTED = frozenset({"RS256", "ES256", "EdDSA"})
GOOD = signed({"alg": "EdDSA", "kid": "k"}, {"sub": "u"}, ed_key(), "EdDSA")


def test_the_examples_of_the_module_hold() -> None:
    """The format page of the module runs."""
    result = doctest.testmod(token)
    assert (result.failed, result.attempted > 0) == (0, True)


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "EdDSA"])
def test_a_good_token_is_read_and_its_signature_fits(algorithm: str) -> None:
    """Every algorithm, from the signature to the claims; and no other key's."""

    def key_of(name: str) -> PrivateKey:
        return ec_key(name) if algorithm == "ES256" else ed_key(name) if algorithm == "EdDSA" else rsa_key(name)

    header = {"alg": algorithm, "kid": "k", "typ": "AT+JWT"}
    read = parse_token(signed(header, {"sub": "u"}, key_of("provider"), algorithm), [algorithm])
    check_signature(read, PyJWK(jwk(key_of("provider")), algorithm))
    assert (read.algorithm, read.key_id, read.type, parse_claims(read)) == (algorithm, "k", "at+jwt", {"sub": "u"})
    with pytest.raises(InvalidTokenError):
        check_signature(read, PyJWK(jwk(key_of("other")), algorithm))


def test_every_bit_of_a_token_counts() -> None:
    """Of the text: one bit flipped anywhere and it is no good token any more."""
    key = PyJWK(jwk(ed_key()), "EdDSA")
    check_signature(parse_token(GOOD, ACCEPTED), key)
    for bit in range(8 * len(GOOD)):
        data = bytearray(GOOD.encode())
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidTokenError):
            check_signature(parse_token(data.decode("latin-1"), ACCEPTED), key)


HEADERS = [
    {}, [], 5, "x", None, {"alg": "none"}, {"alg": "None"}, {"alg": "HS256"}, {"alg": "RS384"}, {"alg": "rs256"}, {"alg": ["RS256"]},
    {"alg": {"RS256": 1}}, {"alg": "RS256 "}, {"alg": "RS256\0"}, {"alg": 256}, {"alg": True}, {"alg": "RS256", "kid": ""},
    {"alg": "RS256", "kid": "x" * 257}, {"alg": "RS256", "kid": None}, {"alg": "RS256", "kid": 5}, {"alg": "RS256", "kid": ["k"]},
    {"alg": "RS256", "kid": {}}, {"alg": "RS256", "typ": 5}, {"alg": "RS256", "typ": None}, {"alg": "RS256", "crit": []},
    {"alg": "RS256", "crit": ["exp"], "exp": 1}, {"alg": "RS256", "crit": None}, {"alg": "RS256", "b64": True},
    {"alg": "RS256", "b64": False}, b"", b"{", b'{"alg":"RS256","alg":"RS256"}', b'{"alg":"RS256"}x', b"\xff",
    b'\xef\xbb\xbf{"alg":"RS256"}', b'{"alg":"RS256","x":NaN}', b'{"alg":"\\ud800"}', b"[" * 6000,
    b'{"alg":"RS256","x":' + b"[" * 2500 + b"]" * 2500 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: repr(header)[:40])
def test_a_bad_header_is_refused(header: object) -> None:
    """Whatever signed it."""
    with pytest.raises(InvalidTokenError):
        parse_token(signed(header, {"sub": "u"}, rsa_key()), ACCEPTED)


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b"5", b"null", b'"x"', b'{"a":1,"a":1}', GOOD.encode(), b'{"exp":NaN}', b"\xff"]
)
def test_bad_claims_are_refused(payload: bytes) -> None:
    """Also those that are another token: what is nested is not looked into."""
    with pytest.raises(InvalidTokenError):
        parse_claims(parse_token(signed({"alg": "RS256"}, payload, rsa_key()), ACCEPTED))


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "...", "a.b", GOOD + ".", "." + GOOD, GOOD + ".AAAA", GOOD + ".AAAA.AAAA", GOOD.replace(".", ":")],
)
def test_another_number_of_parts_is_refused(text: str) -> None:
    """Five would be an encrypted token."""
    with pytest.raises(InvalidTokenError):
        parse_token(text, ACCEPTED)


def test_a_token_has_a_greatest_length() -> None:
    """Exactly that long is good; one character more is not."""
    start = b64(b'{"alg":"RS256"}') + ".e30."
    assert parse_token(start + "A" * (TOKEN_CHARACTERS - len(start)), ACCEPTED).payload == b"{}"
    with pytest.raises(InvalidTokenError, match="not valid") as refused:
        parse_token(start + "A" * (TOKEN_CHARACTERS - len(start) + 1), ACCEPTED)
    assert str(TOKEN_CHARACTERS) in refused.value.reason


@given(st.binary(max_size=200))
def test_base64url_has_one_spelling(data: bytes) -> None:
    """The inverse of encoding; nothing is nobody's spelling."""
    assert decode_base64url(b64(data)) == (data or None)


@given(st.text(st.sampled_from("AQgw-_+/= \n\t.é"), max_size=12))
def test_what_base64url_takes_it_gives_back(text: str) -> None:
    """So there is no second spelling of anything."""
    data = decode_base64url(text)
    assert data is None or b64(data) == text


@given(
    st.one_of(
        st.text(),
        st.from_regex(r"eyJ[\w-]*\.[\w-]*\.[\w-]*", fullmatch=True),
        st.binary().map(lambda raw: f"{b64(raw)}.e30.AA"),
    )
)
def test_no_text_is_an_unplanned_error(text: str) -> None:
    """Refused or read, nothing else."""
    with contextlib.suppress(InvalidTokenError):
        parse_claims(parse_token(text, ACCEPTED))


@given(st.sampled_from(["RS256", "ES256", "EdDSA"]), st.binary(min_size=1, max_size=300))
def test_no_signature_is_an_unplanned_error(algorithm: str, signature: bytes) -> None:
    """Of whatever length."""
    key = {"RS256": jwk(rsa_key()), "ES256": jwk(ec_key()), "EdDSA": jwk(ed_key())}[algorithm]
    read = parse_token(f"{b64(encode({'alg': algorithm}))}.e30.{b64(signature)}", ACCEPTED)
    with pytest.raises(InvalidTokenError):
        check_signature(read, PyJWK(key, algorithm))


TIMES: list[tuple[object, float | None]] = [
    (0, 0.0), (1, 1.0), (1.5, 1.5), (1 << 53, float(1 << 53)), (-1, None), ("1", None), (None, None), (True, None), ([], None), ({}, None),
    ((1 << 53) + 1, None), (10**400, None), (float("nan"), None), (float("inf"), None), (1e300, None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "seconds"), TIMES)
def test_only_a_number_of_seconds_is_a_time(value: object, seconds: float | None) -> None:
    """No string, no boolean, nothing negative or beyond every calendar."""
    assert parse_time(value) == seconds  # type: ignore[arg-type]


def test_types_are_compared_without_case_and_prefix() -> None:
    """As RFC 7515 has it."""
    assert {parse_type(name) for name in ("at+jwt", "AT+JWT", "application/at+jwt", "Application/At+JWT")} == {"at+jwt"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [(GOOD, True), ("aud_" + "x" * 61, False), ("my.own.key-" + "x" * 30, False), ("eyJx.y", False), (GOOD + ".x.y", False), ("", False)],
)  # fmt: skip
def test_a_key_does_not_look_like_a_token(text: str, expected: bool) -> None:
    """A bootstrap key may have dots."""
    assert looks_like_token(text) is expected
