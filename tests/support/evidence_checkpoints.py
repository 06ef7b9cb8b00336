"""Whose word the tree is: checkpoints by others, of others, in other forms, revoked."""

import base64
from collections.abc import Iterator

from audit_service.core.chain import format_origin
from audit_service.core.note import Note, format_note, sign
from audit_service.core.vkey import Signer, format_vkey
from tests.support.bundles import (
    SERVICE,
    MadeLog,
    pack,
    remade,
)
from tests.support.evidence_base import OTHER_SEED, Case, cosigner_vkey, full_log, public_text, refused


def checkpoint_cases() -> Iterator[Case]:
    """Whose word the tree is."""
    log = full_log()
    whole = log.bundle()
    stranger = Signer.from_seed(log.origin, OTHER_SEED)
    yield refused("checkpoint by another key", remade(whole, checkpoint=log.note(signers=[stranger])), "checkpoint")
    yield refused(
        "an older checkpoint", remade(whole, checkpoint=log.note(27)), "checkpoint", "controls", "forgotten", "range"
    )
    for size, name in ((27, "an older checkpoint, size claimed"), (29, "a later size claimed")):
        yield refused(
            name, remade(whole, {"size": size}), *(("manifest",) if size < 28 else ("checkpoint", "controls", "range"))
        )
    old = remade(log.bundle(0, 20), checkpoint=log.note(27))
    yield refused("an older checkpoint for a range within", old, "checkpoint", "controls", "forgotten", "range")
    yield Case("no key pinned", pack(whole), (), exit=2)
    yield Case("a key mistyped", pack(whole), (log.vkey.replace("+6", "+7", 1),), exit=2)
    yield Case("a key that is none", pack(whole), ("key",), exit=2)
    yield Case("a key of another type", pack(whole), (cosigner_vkey(),), exit=2)
    named = Signer.from_seed(log.origin[:-1] + "1", log.signing_seed)
    yield Case("the key of another epoch", pack(whole), (format_vkey(named.verifier()),), exit=2)
    tenant = Signer.from_seed(format_origin(SERVICE, "0" * 32, 2), log.signing_seed)
    yield Case(
        "the key of another tenant", pack(whole), (format_vkey(tenant.verifier()),), frozenset({"checkpoint"}), 1
    )
    # The same pair of keys signs every log, so it is the key's name that tells them apart.
    signed_by_other_name = remade(whole, checkpoint=log.note(signers=[tenant]))
    pinned = (format_vkey(tenant.verifier()),)
    yield Case("signed under another name", pack(signed_by_other_name), pinned, frozenset({"checkpoint"}), 1)
    note = whole["checkpoint"]
    flipped = note[:-4] + (b"B" if note[-4:-3] == b"A" else b"A") + note[-3:]
    for name, data in {
        "a signature that does not hold": flipped,
        "root edited": note.replace(note.split(b"\n")[2], base64.b64encode(bytes(32))),
        "an extension line": note.replace(b"\n\n", b"\nmore\n\n"),
        "size with a zero before": note.replace(b"\n28\n", b"\n028\n"),
        "no signature": note.split(b"\n\n")[0] + b"\n",
        "no line feed": note[:-1],
        "a line more": note + b"x\n",
        "a control character": note.replace(b"\n28\n", b"\n28\t\n"),
        "not UTF-8": b"\xff" + note,
        "empty": b"",
        "more bytes than a note may have": note + note.split(b"\n\n")[1] * 500,
        "sixty-five signatures": note + note.split(b"\n\n")[1] * 64,
        "a signature that is too short": note + "— a AAAA\n".encode(),
        "a signature in another spelling": note + "— a AAAAAAB=\n".encode(),
        "carriage returns": note.replace(b"\n", b"\r\n"),
    }.items():
        fails = {
            "root edited": ("checkpoint", "range", "controls", "forgotten"),
            "a signature that does not hold": ("checkpoint",),
        }.get(name)
        if fails is None:
            fails = ("checkpoint",) if len(data) <= 65536 else ("members",)
        yield refused(f"checkpoint: {name}", remade(whole, checkpoint=data), *fails)
    yield refused("checkpoint: missing", remade(whole, checkpoint=None), "members")
    # Signed as they are, so that nothing is wrong but their form.
    origin, count, root = note.decode().split("\n")[:3]
    for name, text in {
        "an extension line, signed": f"{origin}\n{count}\n{root}\nmore\n",
        "a size with a zero before, signed": f"{origin}\n0{count}\n{root}\n",
        "a root of 31 bytes, signed": f"{origin}\n{count}\n{base64.b64encode(bytes(31)).decode()}\n",
        "an origin that is none, signed": f"{origin}x\n{count}\n{root}\n",
        "a size of twenty digits, signed": f"{origin}\n{10**19}\n{root}\n",
        "a size beyond 63 bits, signed": f"{origin}\n{2**63}\n{root}\n",
    }.items():
        signed = format_note(Note(text, (sign(text, log.signer),))).encode()
        yield refused(f"checkpoint: {name}", remade(whole, checkpoint=signed), "checkpoint")
    text = f"{origin[:-1]}3\n{count}\n{root}\n"
    later = Signer.from_seed(f"{origin[:-1]}3", log.signing_seed)
    signed = format_note(Note(text, (sign(text, later),))).encode()
    members = remade(whole, checkpoint=signed)
    yield Case(
        "checkpoint of a later epoch", pack(members), (format_vkey(later.verifier()),), frozenset({"checkpoint"}), 1
    )
    other = MadeLog(log_key="0" * 32, epoch=2)
    for _ in range(28):
        other.event()
    yield refused(
        "checkpoint of another log",
        remade(whole, checkpoint=other.note()),
        "checkpoint",
        "controls",
        "forgotten",
        "range",
    )
    revoked = MadeLog()
    revoked.event()
    revoked.control("signer", {"event": "revoked", "old": public_text(revoked.signer), "from_size": 1})
    yield refused("signed by a key revoked before", revoked.bundle(), "checkpoint", log=revoked)
    twice = MadeLog()
    twice.event()
    for size in (1, 5):  # a later entry cannot lift what an earlier one revoked
        twice.control("signer", {"event": "revoked", "old": public_text(twice.signer), "from_size": size})
    yield refused("revoked twice", twice.bundle(), "checkpoint", log=twice)
