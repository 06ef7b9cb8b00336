"""Checkpoints: known answers, the golden one, the one spelling, and that the log itself must have signed."""

import base64
import doctest
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import checkpoint as checkpoint_module
from audit_service.core.checkpoint import (
    Checkpoint,
    format_checkpoint,
    open_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
)
from audit_service.core.merkle import EMPTY_ROOT
from audit_service.core.note import Note, cosign, format_note, parse_note, sign
from audit_service.core.vkey import KeyKind, Signer, format_vkey, parse_vkey
from audit_service.errors import InvalidSignatureError, MalformedNoteError, UnknownSignerError
from tests.core.test_vkey import NAMES
from tests.support.notes import (
    COSIGNED,
    COSIGNED_AT_SECONDS,
    LOG_NAME,
    LOG_SEED,
    LOG_VKEY,
    SIGNED,
    TEXT,
    WITNESS_LINE,
    WITNESS_VKEY,
)
from tests.support.vectors import PATH, load_vectors

LOG, WITNESS = parse_vkey(LOG_VKEY), parse_vkey(WITNESS_VKEY)
SIGNER = Signer.from_seed(LOG_NAME, LOG_SEED)
SUCCESSOR = Signer.from_seed(LOG_NAME, bytes([8]) * 32)
ROOT = bytes.fromhex("b6748f6ed7a99de7da84fd97e1a3bac6fab8999f4a43695cab9528a2de431147")
KNOWN = Checkpoint(LOG_NAME, 5, ROOT)


def test_the_examples_of_the_module_hold() -> None:
    """The format page of the module runs."""
    result = doctest.testmod(checkpoint_module)
    assert (result.failed, result.attempted > 3) == (0, True)


def test_the_known_checkpoint_is_written_signed_and_opened() -> None:
    """The published bytes, both ways."""
    assert format_checkpoint(KNOWN) == TEXT
    assert format_note(sign_checkpoint(KNOWN, [SIGNER])) == SIGNED
    opened = open_checkpoint(parse_note(COSIGNED), [LOG, WITNESS])
    assert (opened.checkpoint, opened.note) == (KNOWN, parse_note(COSIGNED))
    assert [(one.key, one.at_seconds) for one in opened.signatures] == [(LOG, None), (WITNESS, COSIGNED_AT_SECONDS)]


def test_the_golden_checkpoint_is_the_golden_tree_signed() -> None:
    """Made by an independent program: key, text and signature over the tree of all golden entries."""
    golden = json.loads(PATH.read_text("utf-8"))["checkpoint"]
    vectors = load_vectors()
    signer = Signer.from_seed(vectors.origin, bytes.fromhex(golden["private_key_seed"]))
    tree = vectors.trees[-1]
    assert format_vkey(signer.verifier()) == golden["vkey"]
    note = sign_checkpoint(Checkpoint(vectors.origin, tree.size, tree.root), [signer])
    assert format_note(note) == golden["note"]
    assert open_checkpoint(parse_note(golden["note"]), [parse_vkey(golden["vkey"])]).checkpoint.root == tree.root


@given(NAMES, st.integers(1, 2**63), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_survives_its_text(origin: str, size: int, root: bytes) -> None:
    """parse is the inverse of format."""
    checkpoint = Checkpoint(origin, size, root)
    assert parse_checkpoint(format_checkpoint(checkpoint)) == checkpoint


def test_the_empty_log_has_one_root() -> None:
    """Size 0 is a checkpoint with the hash of nothing, and with no other root."""
    empty = Checkpoint(LOG_NAME, 0, EMPTY_ROOT)
    assert parse_checkpoint(format_checkpoint(empty)) == empty
    with pytest.raises(MalformedNoteError):
        Checkpoint(LOG_NAME, 0, ROOT)


LINES = TEXT.split("\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", None),
        (TEXT[:-1], None),
        (TEXT + "\n", None),
        (TEXT + "extension\n", None),
        ("\n" + TEXT, None),
        (TEXT.replace("\n5\n", "\n5\n\n"), None),
        (TEXT.replace(LOG_NAME, ""), 1),
        (TEXT.replace(LOG_NAME, "with space"), 1),
        (TEXT.replace(LOG_NAME, "with+plus"), 1),
        *((TEXT.replace("\n5\n", f"\n{size}\n"), 2) for size in ("", "05", "00", "+5", "-5", " 5", "5 ", "5.0", "0x5")),
        *((TEXT.replace("\n5\n", f"\n{size}\n"), 2) for size in ("５", "٥", "5_0", "1" * 20, str(2**63 + 1))),
        (TEXT.replace("\n5\n", "\n0\n"), 3),
        *((TEXT.replace(LINES[2], base64.b64encode(bytes(width)).decode()), 3) for width in (1, 31, 33)),
        *((TEXT.replace("EUc=", end), 3) for end in ("EUc", "EUd=", "EU=c", "EUc==", " EUc=")),
        (TEXT.replace("tnSP", "tn-_"), 3),
    ],
)
def test_other_texts_are_no_checkpoints(text: str, line: int | None) -> None:
    """Three lines, one spelling; the error has the place and quotes nothing."""
    with pytest.raises(MalformedNoteError) as caught:
        parse_checkpoint(text)
    assert caught.value.line == line
    assert "audit.example" not in str(caught.value)


@pytest.mark.parametrize(
    ("origin", "size", "root"), [("a b", 1, ROOT), ("a", -1, ROOT), ("a", 2**63 + 1, ROOT), ("a", 1, b"")]
)
def test_what_is_no_checkpoint_can_not_be_made(origin: str, size: int, root: bytes) -> None:
    """So none is signed."""
    with pytest.raises(MalformedNoteError):
        Checkpoint(origin, size, root)


def test_during_a_succession_both_keys_sign() -> None:
    """Whoever pins the old key, the new one or both opens the checkpoint."""
    note = parse_note(format_note(sign_checkpoint(KNOWN, [SIGNER, SUCCESSOR])))
    for keys in ([LOG], [SUCCESSOR.verifier()], [SUCCESSOR.verifier(), LOG]):
        opened = open_checkpoint(note, keys)
        assert {one.key for one in opened.signatures} == set(keys)


def test_only_the_origin_signs_a_checkpoint() -> None:
    """On the writing side nothing else is made."""
    for signers in ([], [Signer.from_seed("other.example/t/1", LOG_SEED)]):
        with pytest.raises(MalformedNoteError):
            sign_checkpoint(KNOWN, signers)


def test_a_witness_alone_makes_no_checkpoint() -> None:
    """Its word counts only beside the log's."""
    with pytest.raises(UnknownSignerError):
        open_checkpoint(parse_note(f"{TEXT}\n{WITNESS_LINE}"), [LOG, WITNESS])
    with pytest.raises(UnknownSignerError):
        open_checkpoint(parse_note(COSIGNED), [WITNESS])
    named_as_log = Note(TEXT, (cosign(TEXT, SIGNER, 1),))
    with pytest.raises(UnknownSignerError):
        open_checkpoint(named_as_log, [LOG, SIGNER.verifier(KeyKind.COSIGNATURE)])


def test_another_logs_key_makes_no_checkpoint_of_this_log() -> None:
    """Also if it is known, and if it is the same private key under another name."""
    other = Signer.from_seed("audit.example.com/t/000000/1", LOG_SEED)
    with pytest.raises(UnknownSignerError):
        open_checkpoint(Note(TEXT, (sign(TEXT, other),)), [LOG, other.verifier()])
    renamed = Note(TEXT.replace("7f3a9c/1", "7f3a9c/2"), parse_note(SIGNED).signatures)
    with pytest.raises(InvalidSignatureError):
        open_checkpoint(renamed, [LOG])


def test_a_signed_text_that_is_no_checkpoint_is_refused() -> None:
    """What the log's key signed must still be three lines."""
    text = TEXT + "extension\n"
    with pytest.raises(MalformedNoteError):
        open_checkpoint(Note(text, (sign(text, SIGNER),)), [LOG])
