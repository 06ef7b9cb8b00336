r"""Inclusion proof files (C2SP tlog-proof, `.tlog-proof`): an entry's place in a log, checkable offline.

    c2sp.org/tlog-proof@v1
    extra <base64>                  optional; unauthenticated; we put the entry's header here
    index <index>
    <base64 of a hash>              the inclusion proof, leaf to root, one a line
    <empty line>
    <the signed checkpoint, verbatim>

Checked in this order: the leaf hash of the entry; the checkpoint's signature by its log; the cosignatures by the
policy; the inclusion, against the root in that checkpoint and nothing else. What stands in `extra` is worth
something only once it was checked to be the entry.

>>> from audit_service.core.checkpoint import Checkpoint, sign_checkpoint
>>> from audit_service.core.merkle import leaf_hash, node_hash
>>> from audit_service.core.policy import policy_of_key
>>> from audit_service.core.vkey import Signer
>>> signer = Signer.from_seed("audit.example.com/t/7f3a9c/1", bytes([7]) * 32)
>>> root = node_hash(leaf_hash(b"0"), leaf_hash(b"1"))
>>> note = sign_checkpoint(Checkpoint(signer.name, 2, root), [signer])
>>> text = format_proof_file(ProofFile(1, (leaf_hash(b"0"),), note, extra=b"1"))
>>> text.splitlines()[:4]
['c2sp.org/tlog-proof@v1', 'extra MQ==', 'index 1', '2zQm6HgGjSjSabbIcXIyLOU3K2V1bQeJAB00g19gHAM=']
>>> open_proof_file(parse_proof_file(text), b"1", policy_of_key(signer.verifier())).checkpoint.size
2
"""

from dataclasses import dataclass

from audit_service.core.checkpoint import OpenedCheckpoint, open_checkpoint
from audit_service.core.merkle import HASH_BYTES, check_inclusion, leaf_hash
from audit_service.core.note import Note, format_note, parse_note
from audit_service.core.policy import Policy, check_quorum
from audit_service.core.strict_text import decode_base64, decode_text, encode_base64, parse_decimal
from audit_service.errors import MalformedNoteError

__all__ = ["PROOF_FILE_LIMIT_BYTES", "ProofFile", "format_proof_file", "open_proof_file", "parse_proof_file"]

PROOF_FILE_LIMIT_BYTES = 256 * 1024  # a note, 63 hashes, and an entry of 65,535 bytes in base64 with room to spare
_FIRST_LINE = "c2sp.org/tlog-proof@v1"
_EXTRA, _INDEX = "extra ", "index "
_HASH_LIMIT_LINES = 63  # the path in a tree of 2^63 leaves


@dataclass(frozen=True, slots=True)
class ProofFile:
    """An inclusion proof (`hashes`, leaf to root) of the entry at `index` in the tree of a signed checkpoint."""

    index: int
    hashes: tuple[bytes, ...]
    note: Note
    extra: bytes | None = None


def format_proof_file(proof: ProofFile) -> str:
    """The file's text. Raises `MalformedNoteError` for a note that is none."""
    lines = [_FIRST_LINE]
    if proof.extra is not None:
        lines.append(_EXTRA + encode_base64(proof.extra))
    lines.append(f"{_INDEX}{proof.index}")
    lines += map(encode_base64, proof.hashes)
    return "\n".join(lines) + "\n\n" + format_note(proof.note)


def parse_proof_file(data: bytes | str) -> ProofFile:
    """The inverse of `format_proof_file`; nothing is verified. Raises `MalformedNoteError`."""
    content = decode_text(data, PROOF_FILE_LIMIT_BYTES)
    head, separator, note = content.partition("\n\n")
    lines = head.split("\n")
    if not separator or lines.pop(0) != _FIRST_LINE:
        raise MalformedNoteError("not a proof file of version 1", 1)
    extra = None
    if lines and lines[0].startswith(_EXTRA):
        extra = decode_base64(lines.pop(0).removeprefix(_EXTRA), 2)
    line = 2 if extra is None else 3
    if not lines or not lines[0].startswith(_INDEX):
        raise MalformedNoteError("no index", line)
    index = parse_decimal(lines[0].removeprefix(_INDEX), line)
    hashes = tuple(_parse_hash(one, number) for number, one in enumerate(lines[1:], start=line + 1))
    if len(hashes) > _HASH_LIMIT_LINES:
        raise MalformedNoteError(f"more than {_HASH_LIMIT_LINES} hashes")
    return ProofFile(index, hashes, parse_note(note), extra)


def open_proof_file(proof: ProofFile, entry: bytes, policy: Policy) -> OpenedCheckpoint:
    """The checkpoint of a proof, once `entry` (its header's bytes) is found to be in a log the policy trusts.

    Raises `ProofError`: `SignatureError` for the checkpoint, `RootMismatchError` for the inclusion.
    """
    leaf = leaf_hash(entry)
    opened = open_checkpoint(proof.note, policy.keys)
    check_quorum(policy, opened.signatures)
    check_inclusion(leaf, proof.index, opened.checkpoint.size, proof.hashes, opened.checkpoint.root)
    return opened


def _parse_hash(text: str, line: int) -> bytes:
    found = decode_base64(text, line)
    if len(found) != HASH_BYTES:
        raise MalformedNoteError("not a hash of 32 bytes", line)
    return found
