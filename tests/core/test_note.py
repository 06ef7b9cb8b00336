"""Signed notes: known answers, round trips, every flipped bit refused, and whose signatures count."""

import doctest
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from audit_service.core import note as note_module
from audit_service.core.note import (
    NOTE_LIMIT_BYTES,
    SIGNATURE_LIMIT_LINES,
    Note,
    Signature,
    VerifiedSignature,
    cosign,
    format_note,
    open_note,
    parse_note,
    sign,
)
from audit_service.core.vkey import KeyKind, Signer, VerifierKey, parse_vkey
from audit_service.errors import (
    InvalidSignatureError,
    MalformedNoteError,
    ProofError,
    TrustInputError,
    UnknownSignerError,
)
from tests.core.test_vkey import NAMES
from tests.support.notes import (
    COSIGNED,
    COSIGNED_AT_SECONDS,
    LOG_LINE,
    LOG_NAME,
    LOG_SEED,
    LOG_VKEY,
    SIGNED,
    TEXT,
    WITNESS_LINE,
    WITNESS_NAME,
    WITNESS_SEED,
    WITNESS_VKEY,
)

LOG, WITNESS = parse_vkey(LOG_VKEY), parse_vkey(WITNESS_VKEY)
LOG_SIGNER, WITNESS_SIGNER = Signer.from_seed(LOG_NAME, LOG_SEED), Signer.from_seed(WITNESS_NAME, WITNESS_SEED)
OTHER_SIGNER = Signer.from_seed(LOG_NAME, bytes([8]) * 32)

TEXTS = st.text(st.one_of(st.just("\n"), st.characters(exclude_categories=["Cs"], min_codepoint=32)), max_size=60).map(
    lambda text: text + "\n"
)
SIGNATURES = st.builds(Signature, NAMES, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80))
NOTES = st.builds(Note, TEXTS, st.lists(SIGNATURES, min_size=1, max_size=5).map(tuple))


def flipped_bits(data: bytes) -> Iterator[bytes]:
    """The same bytes, each time with another bit turned."""
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def accepted(variants: Iterator[bytes], keys: list[VerifierKey]) -> int:
    """How many of the notes open with every key having signed."""
    count = 0
    for data in variants:
        try:
            count += len(open_note(parse_note(data), keys)) == len(keys)
        except ProofError:
            continue
    return count


def test_the_examples_of_the_module_hold() -> None:
    """The format page of the module runs."""
    result = doctest.testmod(note_module)
    assert (result.failed, result.attempted > 5) == (0, True)


def test_signing_gives_the_known_lines() -> None:
    """Ed25519 is deterministic, so signature and cosignature are the published bytes."""
    note = Note(TEXT, (sign(TEXT, LOG_SIGNER), cosign(TEXT, WITNESS_SIGNER, COSIGNED_AT_SECONDS)))
    assert format_note(note) == COSIGNED
    assert parse_note(COSIGNED) == note == parse_note(COSIGNED.encode())


def test_the_known_note_opens() -> None:
    """With each key alone, and with both in the note's order."""
    note = parse_note(COSIGNED)
    by_log, by_witness = VerifiedSignature(LOG, None), VerifiedSignature(WITNESS, COSIGNED_AT_SECONDS)
    assert open_note(note, [LOG]) == (by_log,)
    assert open_note(note, [WITNESS]) == (by_witness,)
    assert open_note(note, [WITNESS, LOG, LOG]) == (by_log, by_witness)


def test_every_single_bit_flip_of_a_signed_note_is_refused() -> None:
    """Text, separator, name, key id, signature: each bit matters, for the log's line and the witness's."""
    assert accepted(iter([SIGNED.encode()]), [LOG]) == 1
    assert accepted(flipped_bits(SIGNED.encode()), [LOG]) == 0
    assert accepted(iter([COSIGNED.encode()]), [LOG, WITNESS]) == 1
    assert accepted(flipped_bits(COSIGNED.encode()), [LOG, WITNESS]) == 0


def test_the_flips_show_when_nothing_is_verified() -> None:
    """Control: with the verification left out the same harness finds hundreds of accepted flips."""

    def trusting(_text: str, _signature: Signature, key: VerifierKey, _line: int) -> VerifiedSignature:
        return VerifiedSignature(key, None)

    with patch.object(note_module, "_verify", trusting):
        assert accepted(flipped_bits(SIGNED.encode()), [LOG]) > 300


@given(NOTES)
@example(Note("\n", (Signature("n", b"1234", b"5"),)))
@example(Note("a\n\n— b MTIzNDU=\n", (Signature("n", b"1234", b"5"),)))
@example(Note("a\n\n\n", (Signature("n", b"1234", b"5"),)))
def test_a_note_survives_its_text(note: Note) -> None:
    """parse is the inverse of format, whatever the text looks like; and there is one spelling."""
    written = format_note(note)
    assert parse_note(written) == note == parse_note(written.encode())
    assert format_note(parse_note(written)) == written


@given(TEXTS, st.binary(min_size=32, max_size=32), NAMES, st.integers(0, 2**63 - 1))
def test_what_is_signed_opens_and_no_other_text_does(text: str, seed: bytes, name: str, at_seconds: int) -> None:
    """Any text, name, seed and time."""
    signer = Signer.from_seed(name, seed)
    keys = [signer.verifier(), signer.verifier(KeyKind.COSIGNATURE)]
    signatures = (sign(text, signer), cosign(text, signer, at_seconds))
    opened = open_note(Note(text, signatures), keys)
    assert [(one.key, one.at_seconds) for one in opened] == [(keys[0], None), (keys[1], at_seconds)]
    for key, signature in zip(keys, signatures, strict=True):
        with pytest.raises(InvalidSignatureError):
            open_note(Note("x" + text, (signature,)), [key])


def test_lines_by_unknown_keys_are_ignored() -> None:
    """Another name, another key of the same name, garbage: none of them counts, none of them harms."""
    garbage = "— stranger.example/x MTIzNDU2Nzg=\n"
    other = format_note(Note(TEXT, (sign(TEXT, OTHER_SIGNER),))).removeprefix(f"{TEXT}\n")
    note = parse_note(f"{TEXT}\n{garbage}{other}{LOG_LINE}{garbage}")
    assert open_note(note, [LOG]) == (VerifiedSignature(LOG, None),)
    for keys in ([], [WITNESS]):
        with pytest.raises(UnknownSignerError):
            open_note(note, keys)


def test_a_known_key_that_fails_condemns_the_note() -> None:
    """Also beside good signatures, before or after, also by the same key."""
    wrong = sign(TEXT + "x\n", LOG_SIGNER)
    good = sign(TEXT, LOG_SIGNER), cosign(TEXT, WITNESS_SIGNER, 1)
    for at in range(3):
        signatures = (*good[:at], wrong, *good[at:])
        with pytest.raises(InvalidSignatureError) as caught:
            open_note(Note(TEXT, signatures), [LOG, WITNESS])
        assert caught.value.line == at + 1
    assert len(open_note(Note(TEXT, (*good, wrong)), [WITNESS])) == 1


def test_a_signature_is_of_its_kind_only() -> None:
    """The same seed as log and as witness: neither signature passes for the other."""
    line = sign(TEXT, LOG_SIGNER)
    as_witness = LOG_SIGNER.verifier(KeyKind.COSIGNATURE)
    disguised = Signature(LOG_NAME, as_witness.key_id, bytes(8) + line.value)
    with pytest.raises(InvalidSignatureError):
        open_note(Note(TEXT, (disguised,)), [as_witness])
    cosigned = cosign(TEXT, LOG_SIGNER, 0)
    disguised = Signature(LOG_NAME, LOG.key_id, cosigned.value[8:])
    with pytest.raises(InvalidSignatureError):
        open_note(Note(TEXT, (disguised,)), [LOG])


def test_a_cosignature_binds_its_time() -> None:
    """And has one that fits into 63 bits."""
    good = cosign(TEXT, WITNESS_SIGNER, 1000)
    later = Signature(good.name, good.key_id, (1001).to_bytes(8) + good.value[8:])
    with pytest.raises(InvalidSignatureError):
        open_note(Note(TEXT, (later,)), [WITNESS])
    for at_seconds in (-1, 2**63):
        with pytest.raises(MalformedNoteError):
            cosign(TEXT, WITNESS_SIGNER, at_seconds)
    beyond = Ed25519PrivateKey.from_private_bytes(WITNESS_SEED).sign(f"cosignature/v1\ntime {2**63}\n{TEXT}".encode())
    with pytest.raises(InvalidSignatureError):
        open_note(Note(TEXT, (Signature(WITNESS_NAME, WITNESS.key_id, (2**63).to_bytes(8) + beyond),)), [WITNESS])


@pytest.mark.parametrize("cut", [0, 7, 8, 63, 71])
def test_short_signatures_of_known_keys_fail(cut: int) -> None:
    """A value of another width is a failed signature, not an accident."""
    for signer, key in ((LOG_SIGNER, LOG), (WITNESS_SIGNER, WITNESS)):
        with pytest.raises(InvalidSignatureError):
            open_note(Note(TEXT, (Signature(signer.name, key.key_id, bytes(cut)),)), [key])


def test_known_keys_that_can_not_be_told_apart_are_refused() -> None:
    """Two keys with one name and one key id: which of them signed would be a guess."""
    with patch.object(VerifierKey, "key_id", b"same"), pytest.raises(TrustInputError):
        open_note(parse_note(SIGNED), [LOG, OTHER_SIGNER.verifier()])


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", None),
        (TEXT.encode(), None),
        (f"{TEXT}\n".encode(), None),
        (SIGNED[:-1].encode(), None),
        (f"{SIGNED}\n".encode(), None),
        (f"{TEXT}{LOG_LINE}".encode(), None),
        (SIGNED.replace("\n", "\r\n").encode(), 1),
        (SIGNED.replace("7f3a", "7f\t3a", 1).encode(), 1),
        (SIGNED.replace("\n5\n", "\n5\x00\n").encode(), 2),
        (b"\xff" + SIGNED.encode(), None),
        (SIGNED.replace("— ", "- ").encode(), 5),
        (SIGNED.replace("— ", "—").encode(), 5),
        (SIGNED.replace("— ", "—  ").encode(), 5),
        (SIGNED.replace("— ", "—\u00a0").encode(), 5),
        (SIGNED.replace("=\n", "= \n").encode(), 5),
        (SIGNED.replace(" TiId", "  TiId").encode(), 5),
        (SIGNED.replace("Ag0=\n", "Ag0\n").encode(), 5),
        (SIGNED.replace("Ag0=\n", "Ag1=\n").encode(), 5),
        (SIGNED.replace("DbpAg0=\n", "Dbp-g0=\n").encode(), 5),
        (f"{TEXT}\n— a+b MTIzNDU=\n".encode(), 5),
        (f"{TEXT}\n— name\n".encode(), 5),
        (f"{TEXT}\n— name \n".encode(), 5),
        (f"{TEXT}\n— name MTIzNA==\n".encode(), 5),
        (f"{TEXT}\n{LOG_LINE}garbage\n".encode(), 6),
    ],
)
def test_malformed_notes_are_refused_by_line(data: bytes, line: int | None) -> None:
    """The error has the place and quotes nothing."""
    with pytest.raises(MalformedNoteError) as caught:
        parse_note(data)
    assert caught.value.line == line
    assert "audit.example" not in str(caught.value)


def test_text_that_is_not_unicode_is_refused() -> None:
    """As text too, where a lone surrogate stands for bytes that were not UTF-8."""
    with pytest.raises(MalformedNoteError):
        parse_note("\udcff" + SIGNED)


def test_the_limits_hold_on_both_sides() -> None:
    """Just inside and just outside, for bytes and for lines."""
    most = f"{TEXT}\n{LOG_LINE}" + WITNESS_LINE * (SIGNATURE_LIMIT_LINES - 1)
    assert len(open_note(parse_note(most), [LOG, WITNESS])) == SIGNATURE_LIMIT_LINES
    with pytest.raises(MalformedNoteError):
        parse_note(most + WITNESS_LINE)
    with pytest.raises(MalformedNoteError):
        format_note(Note(TEXT, (sign(TEXT, LOG_SIGNER),) * (SIGNATURE_LIMIT_LINES + 1)))
    for over in (0, 1):
        text = "é" * ((NOTE_LIMIT_BYTES - len(LOG_LINE.encode()) - 2) // 2)
        text += "x" * (NOTE_LIMIT_BYTES - len(text.encode()) - len(LOG_LINE.encode()) - 2 + over) + "\n"
        data = f"{text}\n{LOG_LINE}"
        assert len(data.encode()) == NOTE_LIMIT_BYTES + over
        if over:
            with pytest.raises(MalformedNoteError):
                parse_note(data)
        else:
            assert parse_note(data).text == text


@pytest.mark.parametrize(
    "note",
    [
        Note("no newline", (Signature("n", b"1234", b"5"),)),
        Note("", (Signature("n", b"1234", b"5"),)),
        Note("tab\t\n", (Signature("n", b"1234", b"5"),)),
        Note(TEXT, ()),
        Note(TEXT, (Signature("a b", b"1234", b"5"),)),
        Note(TEXT, (Signature("n", b"123", b"45"),)),
        Note(TEXT, (Signature("n", b"1234", b""),)),
        Note("\ud800\n", (Signature("n", b"1234", b"5"),)),
    ],
)
def test_what_would_not_be_read_back_is_not_written(note: Note) -> None:
    """Checked before it is stored or sent."""
    with pytest.raises(MalformedNoteError):
        format_note(note)


@pytest.mark.parametrize("text", ["", "no newline", "tab\t\n", "\ud800\n"])
def test_what_is_no_text_is_not_signed(text: str) -> None:
    """By either kind."""
    with pytest.raises(MalformedNoteError):
        sign(text, LOG_SIGNER)
    with pytest.raises(MalformedNoteError):
        cosign(text, WITNESS_SIGNER, 0)
