"""Inclusion proof files: round trips, every flipped bit, each step of the check on its own, and its order."""

import base64
import doctest
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import merkle
from audit_service.core import proof_file as proof_file_module
from audit_service.core.checkpoint import Checkpoint, sign_checkpoint
from audit_service.core.merkle import ProofLengthError, ProofPositionError, RootMismatchError, prove_inclusion
from audit_service.core.note import Note, cosign
from audit_service.core.policy import Policy, parse_policy, policy_of_key
from audit_service.core.proof_file import (
    PROOF_FILE_LIMIT_BYTES,
    ProofFile,
    format_proof_file,
    open_proof_file,
    parse_proof_file,
)
from audit_service.core.vkey import KeyKind, Signer, format_vkey
from audit_service.errors import (
    InvalidSignatureError,
    MalformedNoteError,
    ProofError,
    QuorumError,
    UnknownSignerError,
)
from tests.core.test_note import NOTES
from tests.support.naive_merkle import NaiveTree
from tests.support.notes import LOG_NAME, LOG_SEED

SIZE, INDEX = 21, 13
DATA = [f"entry {index}\n".encode() for index in range(SIZE)]
LEAVES = [merkle.leaf_hash(data) for data in DATA]
READER = merkle.leaves_reader(LEAVES)
NAIVE = NaiveTree(DATA)
LOG = Signer.from_seed(LOG_NAME, LOG_SEED)
WITNESS = Signer.from_seed("witness.example.net/w1", bytes([9]) * 32)
PINNED = policy_of_key(LOG.verifier())
WITNESSED = parse_policy(
    f"log {format_vkey(LOG.verifier())}\n"
    f"witness W {format_vkey(WITNESS.verifier(KeyKind.COSIGNATURE))}\nquorum W\n".encode()
)

HASHES = st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple)
EXTRAS = st.none() | st.binary(min_size=1, max_size=50)
PROOFS = st.builds(ProofFile, st.integers(0, 2**63), HASHES, NOTES, EXTRAS)


def note_of(size: int = SIZE, *, cosigned: bool = True) -> Note:
    """The signed checkpoint of the tree at a size."""
    note = sign_checkpoint(Checkpoint(LOG_NAME, size, NAIVE.root(0, size)), [LOG])
    line = (cosign(note.text, WITNESS, 1790000000),) if cosigned else ()
    return Note(note.text, note.signatures + line)


PROOF = ProofFile(INDEX, tuple(prove_inclusion(INDEX, SIZE, READER)), note_of(), DATA[INDEX])
TEXT = format_proof_file(PROOF)


def test_the_examples_of_the_module_hold() -> None:
    """The format page of the module runs."""
    result = doctest.testmod(proof_file_module)
    assert (result.failed, result.attempted > 7) == (0, True)


@given(PROOFS)
def test_a_proof_file_survives_its_text(proof: ProofFile) -> None:
    """parse is the inverse of format, with any note within, and there is one spelling."""
    written = format_proof_file(proof)
    assert parse_proof_file(written) == proof == parse_proof_file(written.encode())
    assert format_proof_file(parse_proof_file(written)) == written


def test_every_entry_is_proved_in_every_size() -> None:
    """By file: written, read, checked with a pinned key and with a witness."""
    for size in range(1, SIZE + 1):
        for index in range(size):
            hashes = tuple(prove_inclusion(index, size, READER))
            proof = parse_proof_file(format_proof_file(ProofFile(index, hashes, note_of(size), None)))
            for policy in (PINNED, WITNESSED):
                opened = open_proof_file(proof, DATA[index], policy)
                assert (opened.checkpoint.size, opened.checkpoint.root) == (size, NAIVE.root(0, size))


def accepted_flips() -> int:
    """How many files with one bit turned still prove the entry, except by their unauthenticated extra line."""
    count, data = 0, TEXT.encode()
    extra_start = data.index(b"\nextra ") + len(b"\nextra ")
    extra = range(8 * extra_start, 8 * data.index(b"\n", extra_start))
    for bit in range(8 * len(data)):
        if bit in extra:
            continue
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            open_proof_file(parse_proof_file(bytes(changed)), DATA[INDEX], WITNESSED)
        except ProofError:
            continue
        count += 1
    return count


def test_every_single_bit_flip_of_a_proof_file_is_refused() -> None:
    """Outside the extra line, which says nothing by itself."""
    assert accepted_flips() == 0


@pytest.mark.parametrize("step", ["check_inclusion", "check_quorum"])
def test_the_flips_show_when_a_step_is_left_out(step: str) -> None:
    """Control: without the inclusion, or without the quorum, the same harness finds accepted flips."""
    with patch.object(proof_file_module, step, lambda *_: None):
        assert accepted_flips() > 50


def test_the_root_of_the_checkpoint_alone_counts() -> None:
    """A good inclusion proof into a tree that the checkpoint is not of proves nothing."""
    with pytest.raises(RootMismatchError):
        open_proof_file(
            replace(PROOF, note=sign_checkpoint(Checkpoint(LOG_NAME, SIZE, LEAVES[0]), [LOG])), DATA[INDEX], PINNED
        )
    with pytest.raises(ProofError):
        open_proof_file(replace(PROOF, note=note_of(SIZE - 1)), DATA[INDEX], PINNED)
    with pytest.raises(ProofPositionError):
        open_proof_file(replace(PROOF, note=note_of(INDEX)), DATA[INDEX], PINNED)


def test_another_entry_index_or_path_is_refused() -> None:
    """Each alone."""
    with pytest.raises(RootMismatchError):
        open_proof_file(PROOF, DATA[INDEX - 1], PINNED)
    with pytest.raises(RootMismatchError):
        open_proof_file(replace(PROOF, index=INDEX - 1), DATA[INDEX], PINNED)
    with pytest.raises(ProofLengthError):
        open_proof_file(replace(PROOF, hashes=PROOF.hashes[:-1]), DATA[INDEX], PINNED)


def test_what_is_wrong_with_the_checkpoint_is_said_first() -> None:
    """Log signature, then cosignatures, then inclusion: a wrong entry hides none of them."""
    wrong = b"another entry"
    forged = Note(PROOF.note.text.replace(f"\n{SIZE}\n", "\n22\n"), PROOF.note.signatures)
    with pytest.raises(InvalidSignatureError):
        open_proof_file(replace(PROOF, note=forged), wrong, WITNESSED)
    with pytest.raises(UnknownSignerError):
        open_proof_file(PROOF, wrong, Policy(()))
    with pytest.raises(QuorumError):
        open_proof_file(replace(PROOF, note=note_of(cosigned=False)), wrong, WITNESSED)
    with pytest.raises(RootMismatchError):
        open_proof_file(PROOF, wrong, WITNESSED)


def test_hashes_moved_into_the_note_spoil_its_signature() -> None:
    """The first empty line ends the proof; whatever follows is the note, and a log has not signed that."""
    moved = parse_proof_file(TEXT.replace(HASH_LINE, "", 1))
    assert (moved.hashes, moved.note.signatures) == ((), PROOF.note.signatures)
    with pytest.raises(InvalidSignatureError):
        open_proof_file(moved, DATA[INDEX], PINNED)


HASH_LINE = base64.b64encode(PROOF.hashes[0]).decode()
NO_EXTRA = format_proof_file(replace(PROOF, extra=None))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        (TEXT.replace("@v1", "@v2"), 1),
        ("\n" + TEXT, 1),
        (TEXT.replace("extra ", "Extra "), 2),
        (TEXT.replace("extra ", "extra  "), 2),
        (TEXT.replace("extra ", "extra =").replace("==", "="), 2),
        (NO_EXTRA.replace("\nindex", "\nextra \nindex"), 2),
        (TEXT.replace("\nindex", "\nextra MQ==\nindex"), 3),
        (TEXT.replace(f"index {INDEX}\n", ""), 3),
        (NO_EXTRA.replace(f"index {INDEX}\n", ""), 2),
        (NO_EXTRA.replace(f"index {INDEX}\n", f"index {INDEX}\nextra MQ==\n"), 3),
        *(
            (TEXT.replace(f"index {INDEX}\n", f"index{index}\n"), 3)
            for index in ("", " ", " 013", " -1", "\u00a013", "  13")
        ),
        (TEXT.replace(f"index {INDEX}\n", f"index {2**63 + 1}\n"), 3),
        (TEXT.replace(HASH_LINE, HASH_LINE[:-1]), 4),
        (TEXT.replace(HASH_LINE, "MQ=="), 4),
        (TEXT.replace(HASH_LINE, f"{HASH_LINE} "), 4),
        (TEXT.replace(HASH_LINE, f"{HASH_LINE}\r"), 4),
        (TEXT.replace(f"{HASH_LINE}\n", f"{HASH_LINE}\n" * 64), None),
        (TEXT.partition("\n\n")[0] + "\n\n", None),
        (TEXT[:-1], None),
        (TEXT + "\n", None),
    ],
)
def test_other_texts_are_no_proof_files(text: str, line: int | None) -> None:
    """Refused at their line, with nothing of them quoted."""
    with pytest.raises(MalformedNoteError) as caught:
        parse_proof_file(text)
    assert caught.value.line == line
    assert "example" not in str(caught.value)


def test_the_longest_path_and_the_longest_entry_fit() -> None:
    """63 hashes and an entry of 65,535 bytes; and a limit above."""
    most = replace(PROOF, hashes=(bytes(32),) * 63, extra=bytes(65535))
    written = format_proof_file(most)
    assert parse_proof_file(written) == most
    assert len(written) < PROOF_FILE_LIMIT_BYTES
    with pytest.raises(MalformedNoteError):
        parse_proof_file(written + "x" * PROOF_FILE_LIMIT_BYTES)
