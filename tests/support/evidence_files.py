"""Proof files and policies, which only the program takes: cases beside those of `evidence_cases`."""

import base64
from collections.abc import Iterator, Sequence

from audit_service.core.merkle import leaves_reader, prove_inclusion
from audit_service.core.vkey import KeyKind, Signer, format_vkey
from tests.support.bundles import MadeLog, pack, remade
from tests.support.evidence_cases import Case, full_log

WITNESSES = [Signer.from_seed(f"witness.example.net/w{number}", bytes([9 + number]) * 32) for number in range(3)]


def vkey_of(witness: Signer) -> str:
    """A witness as a policy names it."""
    return format_vkey(witness.verifier(KeyKind.COSIGNATURE))


def policy_text(quorum: str, *, log: str | None = None) -> bytes:
    """A policy over the three witnesses."""
    lines = ["# who must have seen it", "", *([f"log {log} https://audit.example.com"] if log else [])]
    lines += [f"witness w{number} {vkey_of(one)}" for number, one in enumerate(WITNESSES)]
    lines += ["group pair  2\tw0 w1 w2", "group any1 any w1 w2", "group both all pair any1", f"quorum {quorum}", ""]
    return "\n".join(lines).encode()


def policy_cases() -> Iterator[Case]:
    """Bundles with a policy file."""
    log = full_log()
    for quorum, signed, good in (
        ("none", [], True),
        ("w0", [0], True),
        ("w0", [1], False),
        ("w0", [], False),
        ("pair", [0, 2], True),
        ("pair", [2], False),
        ("any1", [2], True),
        ("any1", [0], False),
        ("both", [0, 1], True),
        ("both", [0], False),
    ):
        members = remade(log.bundle(), checkpoint=log.note(cosigners=[WITNESSES[number] for number in signed]))
        fails, code = (frozenset[str](), 0) if good else (frozenset({"policy"}), 1)
        yield Case(f"policy {quorum} with {signed}", pack(members), (log.vkey,), fails, code, policy_text(quorum))
    whole = pack(log.bundle())
    yield Case("a log's key from the policy", whole, (), policy=policy_text("none", log=log.vkey))
    condemned = log.note(cosigners=WITNESSES[:1])
    flipped = condemned[:-6] + (b"B" if condemned[-6:-5] == b"A" else b"A") + condemned[-5:]
    bad = pack(remade(log.bundle(), checkpoint=flipped))
    yield Case(
        "a witness whose signature does not hold", bad, (log.vkey,), frozenset({"checkpoint"}), 1, policy_text("none")
    )
    w0 = f"witness w0 {vkey_of(WITNESSES[0])}\n"
    for name, text in {
        "empty": "",
        "without a quorum": w0,
        "with a quorum of nobody": "quorum w0\n",
        "with two quorums": "quorum none\nquorum none\n",
        "with a key twice": w0 + w0.replace("w0 ", "w1 ", 1) + "quorum none\n",
        "with a name twice": w0 + w0 + "quorum none\n",
        "with a group used before it stands": "group g any w0\n" + w0 + "quorum none\n",
        "with a group of too many": w0 + "group g 2 w0\nquorum none\n",
        "with a group of none": w0 + "group g all\nquorum none\n",
        "with a group of one twice": w0 + "group g 2 w0 w0\nquorum none\n",
        "with an unknown word": "trust me\nquorum none\n",
        "with a key of another type": f"witness w0 {log.vkey}\nquorum none\n",
        "that is not UTF-8": "\udcff",
        "that is too long": "#" * ((1 << 20) + 1),
    }.items():
        yield Case(f"policy {name}", whole, (log.vkey,), exit=2, policy=text.encode("utf-8", "surrogateescape"))


def proof_file(
    log: MadeLog, seq: int, extra: bytes | None, *, note: bytes | None = None, path: Sequence[bytes] | None = None
) -> bytes:
    """A `.tlog-proof` file of one entry."""
    size = len(log.entries)
    hashes = prove_inclusion(seq, size, leaves_reader([one.hash for one in log.entries])) if path is None else path
    head = ["c2sp.org/tlog-proof@v1"]
    head += [] if extra is None else [f"extra {base64.b64encode(extra).decode()}"]
    lines = [*head, f"index {seq}", *(base64.b64encode(one).decode() for one in hashes), "", ""]
    return "\n".join(lines).encode() + (log.note() if note is None else note)


def proof_cases() -> Iterator[Case]:
    """Proofs of one entry."""
    log, keys = full_log(), (full_log().vkey,)
    line, header = log.entries[7].line(), log.entries[7].header.encode()
    good = proof_file(log, 7, line)
    yield Case("proof of an entry", good, keys)
    yield Case("proof of a header", proof_file(log, 7, header), keys)
    yield Case(
        "proof with a policy",
        proof_file(log, 7, line, note=log.note(cosigners=WITNESSES[:1])),
        keys,
        policy=policy_text("w0"),
    )
    yield Case("proof without an entry", proof_file(log, 7, None), keys, exit=2)
    yield Case("proof of an entry with an erased disclosure", proof_file(log, 3, log.entries[3].line()), keys, exit=2)
    yield Case("proof without a key", good, (), exit=2)
    for name, data, fails in (
        ("of another entry", proof_file(log, 7, log.entries[6].line()), ("headers", "inclusion")),
        ("at another index", good.replace(b"index 7\n", b"index 6\n"), ("headers", "inclusion")),
        ("beyond the size", good.replace(b"index 7\n", b"index 99\n"), ("headers", "inclusion")),
        ("with a hash edited", proof_file(log, 7, line, path=[bytes(32)] * 5), ("inclusion",)),
        ("with a hash more", good.replace(b"\n\n", b"\n" + b"A" * 43 + b"=\n\n", 1), ("inclusion",)),
        ("with an unknown line", good.replace(b"index", b"note x\nindex"), ("inclusion",)),
        ("with an index of zeros", good.replace(b"index 7", b"index 07"), ("inclusion",)),
        (
            "with an extra in another spelling",
            proof_file(log, 7, b"x").replace(b"extra eA==", b"extra eB=="),
            ("inclusion",),
        ),
        ("that is not UTF-8", good.replace(b"index", b"\xff"), ("inclusion",)),
        ("with a body edited", proof_file(log, 7, line.replace(b"evt-7", b"evt-8")), ("bodies",)),
        ("with a value edited", proof_file(log, 7, line.replace(b"nightly", b"nightlY")), ("disclosures",)),
        ("with a header edited", proof_file(log, 7, header.replace(b"event", b"drop")), ("inclusion",)),
        ("of a header that is none", proof_file(log, 7, header[:30]), ("headers",)),
        ("of a header with bytes that are not UTF-8", proof_file(log, 7, header + b"\xff"), ("headers",)),
        ("with an extra that is no entry", proof_file(log, 7, b"x"), ("headers",)),
        ("without a checkpoint", good.partition(b"\n\n")[0] + b"\n\n", ("checkpoint",)),
        (
            "by another key",
            proof_file(log, 7, line, note=log.note(signers=[Signer.from_seed(log.origin, bytes(32))])),
            ("checkpoint",),
        ),
        ("for an older checkpoint", proof_file(log, 7, line, note=log.note(20)), ("checkpoint", "inclusion")),
    ):
        # An older checkpoint of this log has the older epoch's key, too.
        expected = {"inclusion"} if name == "for an older checkpoint" else set(fails)
        yield Case(f"proof {name}", data, keys, frozenset(expected), 1)
