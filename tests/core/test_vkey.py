"""Keys and their texts: known answers, round trips, every other spelling refused."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import strict_text, vkey
from audit_service.core.vkey import KeyKind, Signer, VerifierKey, format_vkey, is_key_name, parse_vkey
from audit_service.errors import TrustInputError
from tests.support.notes import LOG_NAME, LOG_SEED, LOG_VKEY, WITNESS_NAME, WITNESS_SEED, WITNESS_VKEY

NAMES = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"], exclude_characters="+"), min_size=1, max_size=40)
KEYS = st.builds(VerifierKey, NAMES, st.sampled_from(KeyKind), st.binary(min_size=32, max_size=32))


@pytest.mark.parametrize("module", [vkey, strict_text])
def test_the_examples_of_the_module_hold(module: object) -> None:
    """The format page of the module runs."""
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert (result.failed, result.attempted > 0) == (0, True)


def test_the_keys_of_the_known_seeds_are_the_known_ones() -> None:
    """Both kinds, made and read."""
    log = Signer.from_seed(LOG_NAME, LOG_SEED).verifier()
    witness = Signer.from_seed(WITNESS_NAME, WITNESS_SEED).verifier(KeyKind.COSIGNATURE)
    assert (format_vkey(log), format_vkey(witness)) == (LOG_VKEY, WITNESS_VKEY)
    assert (parse_vkey(LOG_VKEY), parse_vkey(WITNESS_VKEY)) == (log, witness)


@given(KEYS)
def test_a_key_survives_its_text(key: VerifierKey) -> None:
    """parse is the inverse of format."""
    assert parse_vkey(format_vkey(key)) == key


def test_every_single_bit_flip_of_a_vkey_is_refused() -> None:
    """The key id binds name, kind and key; nothing else of a vkey is free."""
    for bit in range(8 * len(LOG_VKEY)):
        data = bytearray(LOG_VKEY.encode())
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TrustInputError):
            parse_vkey(data.decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "++",
        LOG_NAME,
        LOG_VKEY.replace("4e221d72", "4E221D72"),
        LOG_VKEY.replace("4e221d72", "04e221d72"),
        LOG_VKEY + "\n",
        " " + LOG_VKEY,
        LOG_VKEY.rpartition("+")[0],
        LOG_VKEY.rpartition("+")[0] + "+",
        LOG_VKEY + "=",
        LOG_VKEY.replace("+Aep", "+Aup"),
        # Well-formed, but of a kind we do not know: an ECDSA key, and an ML-DSA-44 cosigner's (cut short).
        f"{LOG_NAME}+4e221d72+AupKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs",
        f"{LOG_NAME}+4e221d72+BupKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs",
        f"{LOG_NAME}+4e221d72+AQ==",
    ],
)
def test_other_texts_are_no_keys(text: str) -> None:
    """Nothing is guessed, and nothing of the text is quoted."""
    with pytest.raises(TrustInputError) as caught:
        parse_vkey(text)
    assert LOG_NAME not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\tb", "a\nb", "a\x00", "a\u00a0b", "a\u2028", "a\u3000", "\ud800"]
)
def test_names_that_would_break_a_line_are_refused(name: str) -> None:
    """Wherever a key is made."""
    assert not is_key_name(name)
    with pytest.raises(TrustInputError):
        VerifierKey(name, KeyKind.ED25519, bytes(32))


@pytest.mark.parametrize("width", [0, 31, 33])
def test_a_public_key_is_32_bytes(width: int) -> None:
    """Before anything is verified with it."""
    with pytest.raises(TrustInputError):
        VerifierKey("name", KeyKind.ED25519, bytes(width))


def test_a_signer_does_not_show_its_key() -> None:
    """So that a log line can not."""
    shown = repr(Signer.from_seed(LOG_NAME, LOG_SEED))
    assert shown == f"Signer(name={LOG_NAME!r})"
