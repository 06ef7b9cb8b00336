"""Bundles that hold, and bundles that do not, each with the checks that must say so. Both offline verifiers face them all.

A forger is assumed to be able: after his change he makes the manifest fit again (`remade`), so that the check he is up
against stands alone. Where a log was *sealed* wrong, everything else about it is right, its signature too.
"""

import base64
import hashlib
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

from audit_service.core.chain import format_origin
from audit_service.core.entry import commitment
from audit_service.core.merkle import Frontier
from audit_service.core.vkey import KeyKind, Signer, format_vkey
from tests.support.bundles import (
    LOG_KEY,
    SERVICE,
    START_US,
    Made,
    MadeLog,
    Members,
    compact,
    pack,
    remade,
    with_manifest,
)

OTHER_SEED = bytes([8]) * 32
NONCE = "AAAAAAAAAAAAAAAAAAAAAA=="
BODY = f'{{"action":"a.b","nonce":"{NONCE}","v":1}}'


@dataclass(frozen=True, slots=True)
class Case:
    """A zip file, the keys to pin, and exactly the checks that must fail. `exit`: 0 good, 1 bad, 2 could not tell."""

    name: str
    data: bytes
    keys: tuple[str, ...]
    fails: frozenset[str] = frozenset()
    exit: int = 0
    policy: bytes | None = None


@cache
def full_log() -> MadeLog:
    """28 entries: events of every shape, and every kind of control entry."""
    log = MadeLog()
    for _ in range(20):
        log.event()
    log.erase([(3, "actor"), (3, "ip"), (6, "metadata")])  # 20
    log.drop([(8, 10), (11, 12)])  # 21
    log.control("resume", {"size": 22, "why": "restored"})  # 22, epoch 2
    log.event()  # 23
    log.control("hold", {"hold": "h", "state": "set"}, target=[("target", '{"id":"1"}')], target_type="server")  # 24
    log.control("prune", log.prune_details(5))  # 25
    log.control("signer", {"event": "added", "old": "", "from_size": 20})  # 26
    log.event()  # 27
    return log


def good_cases() -> Iterator[Case]:
    """Bundles that hold."""
    log, keys = full_log(), (full_log().vkey,)
    ranges: list[tuple[int, int, int | None]] = [
        (0, 28, None), (5, 20, None), (7, 8, None), (6, 7, 7), (4, 4, None), (0, 0, 0), (28, 28, None), (21, 28, None), (3, 24, 25),
    ]  # fmt: skip
    for start, stop, size in ranges:
        epoch1 = size is not None and size < 23
        made = _epoch_one_log() if epoch1 else log
        members = made.bundle(start, stop, size=size)
        yield Case(f"range {start} to {stop} of {size}", pack(members), (made.vkey,))
    for name, chosen in (("some", lambda made: made.seq % 3 == 0), ("none", lambda _: False), ("all", lambda _: True)):
        yield Case(f"filtered, {name}", pack(log.bundle(2, 27, chosen=chosen)), keys)
    members = log.bundle()
    for deflated in (False, True):
        for streamed in (False, True):
            yield Case(
                f"deflated {deflated}, streamed {streamed}", pack(members, deflated=deflated, streamed=streamed), keys
            )
    yield Case("members in another order", pack(dict(reversed(members.items()))), keys)
    yield Case("two keys pinned", pack(members), (*keys, format_vkey(Signer.from_seed("x/y", OTHER_SEED).verifier())))
    both = [log.signer, Signer.from_seed(log.origin, OTHER_SEED)]
    yield Case("signed by a second key, too", pack(log.bundle(signers=both)), keys)
    yield Case("pruned before", pack(log.bundle(5, 28, pruned_before=5)), keys)
    revoking = MadeLog(signing_seed=OTHER_SEED)
    revoking.event()
    revoking.control("signer", {"event": "revoked", "old": _public(MadeLog().signer), "from_size": 0})
    yield Case("another key was revoked", pack(revoking.bundle()), (revoking.vkey,))
    for number, body in enumerate(_canonical_bodies()):
        yield Case(f"canonical body {number}", *_sealed(body))
    for number, value in enumerate(_canonical_values()):
        yield Case(f"canonical value {number}", *_sealed_value(value))


def _epoch_one_log() -> MadeLog:
    log = MadeLog()
    for _ in range(7):
        log.event()
    return log


def bad_cases() -> Iterator[Case]:
    """Bundles that do not hold, or of which nothing can be said."""
    yield from _line_cases()
    yield from _claim_cases()
    yield from _proof_cases()
    yield from _checkpoint_cases()
    yield from _sealed_wrong_cases()
    yield from _forgotten_cases()
    yield from _control_cases()
    yield from _filtered_cases()
    yield from _spelling_cases()
    yield from _zip_cases()


def _bad(name: str, members: Members, *fails: str, log: MadeLog | None = None) -> Case:
    return Case(name, pack(members), ((log or full_log()).vkey,), frozenset(fails), 1 if fails else 2)


def _entries(change: Callable[[list[bytes]], list[bytes]], name: str = "entries_ndjson", **bundle: Any) -> Members:
    """The full bundle with the lines of a member changed, and the manifest made to fit."""
    members = full_log().bundle(**bundle)
    lines = members[name.replace("_", ".")].splitlines(keepends=True)
    return remade(members, **{name: b"".join(change(lines))})


def _line(at: int, change: Callable[[dict[str, Any]], Any], name: str = "entries_ndjson", **bundle: Any) -> Members:
    """The full bundle with one line changed as JSON."""

    def edit(lines: list[bytes]) -> list[bytes]:
        value = json.loads(lines[at])
        change(value)
        return [*lines[:at], compact(value) + b"\n", *lines[at + 1 :]]

    return _entries(edit, name, **bundle)


def _line_cases() -> Iterator[Case]:
    """Lines removed, added, swapped, edited."""
    yield _bad("line removed", _entries(lambda x: x[:7] + x[8:]), "manifest", "headers", "range")
    yield _bad("first line removed", _entries(lambda x: x[1:]), "manifest", "headers", "range")
    yield _bad("last line removed", _entries(lambda x: x[:-1]), "manifest", "range")
    yield _bad("line twice", _entries(lambda x: [*x[:7], x[7], *x[7:]]), "manifest", "headers", "range")
    yield _bad("lines swapped", _entries(lambda x: [*x[:7], x[8], x[7], *x[9:]]), "headers", "range")
    longer = MadeLog()
    for _ in range(30):
        longer.event()
    yield _bad(
        "line added", _entries(lambda x: [*x, longer.entries[28].line()]), "manifest", "headers", "links", "range"
    )
    other = MadeLog(seed=1, log_key="0" * 32)
    for _ in range(20):
        other.event()
    yield _bad(
        "entry of another log", _entries(lambda x: [*x[:7], other.entries[7].line(), *x[8:]]), "headers", "manifest"
    )
    rival = MadeLog(seed=1)
    for _ in range(20):
        rival.event()
    yield _bad("entry of another run", _entries(lambda x: [*x[:7], rival.entries[7].line(), *x[8:]]), "links", "range")
    yield _bad("body edited", _line(7, lambda x: x.update(body=x["body"].replace("evt-7", "evt-8"))), "bodies")
    yield _bad("body of another entry", _line(1, lambda x: x.update(body=full_log().entries[5].body)), "bodies")
    yield _bad("value edited", _line(7, lambda x: x["disclosures"]["target"].__setitem__(1, "{}")), "disclosures")
    yield _bad(
        "salt edited", _line(7, lambda x: x["disclosures"]["target"].__setitem__(0, "A" * 43 + "=")), "disclosures"
    )
    added = ["A" * 43 + "=", "{}"]
    yield _bad("disclosure added", _line(7, lambda x: x["disclosures"].update(more=added)), "disclosures")
    yield _bad("disclosure outlived its body", _line(8, lambda x: x["disclosures"].update(more=added)), "disclosures")
    yield _bad("disclosure under another name", _line(7, _renamed), "disclosures", "forgotten")
    for part, old, new in (
        ("time", f"{START_US + 2}", f"{START_US + 1}"),
        ("kind", "\nevent\n", "\ndrop\n"),
        ("version", "entry/v1", "entry/v2"),
        ("origin", LOG_KEY, "1" + LOG_KEY[1:]),
        ("epoch", "/1\n", "/0\n"),
    ):
        members = _line(7, lambda x, old=old, new=new: x.update(header=x["header"].replace(old, new)))
        wrong = {"time": ("links", "range", "headers"), "kind": ("bodies", "links", "manifest", "range")}.get(part)
        yield _bad(f"header's {part} edited", members, *(wrong or ("headers", "manifest")))
    yield _bad(
        "header with a line more", _line(7, lambda x: x.update(header=x["header"] + "x\n")), "headers", "manifest"
    )
    yield _bad("header injection", _line(7, lambda x: x.update(header=x["header"].replace("event", "event\nevent"))),
               "headers", "manifest")  # fmt: skip
    yield _bad("seq unlike the header's", _line(7, lambda x: x.update(seq=6)), "headers", "manifest")
    yield _bad("seq is a text", _line(7, lambda x: x.update(seq="7")), "headers", "manifest")
    yield _bad("body is a number", _line(7, lambda x: x.update(body=1)), "headers", "manifest")
    yield _bad("disclosures are null", _line(7, lambda x: x.update(disclosures=None)), "headers", "manifest")
    yield _bad("disclosure of three", _line(7, lambda x: x["disclosures"]["target"].append("")), "headers", "manifest")
    yield _bad(
        "salt too short", _line(7, lambda x: x["disclosures"]["target"].__setitem__(0, "AAAA")), "headers", "manifest"
    )
    yield _bad("unknown member", _line(7, lambda x: x.update(note="")), "headers", "manifest")
    yield _bad("inclusion where none belongs", _line(7, lambda x: x.update(inclusion=[])), "headers", "manifest")
    yield _bad("not JSON", _entries(lambda x: [*x[:7], b"{\n", *x[8:]]), "headers", "manifest")
    yield _bad("empty line", _entries(lambda x: [*x[:7], b"\n", *x[7:]]), "headers", "manifest")
    yield _bad("no line feed at the end", _entries(lambda x: [*x[:-1], x[-1][:-1]]), "members")
    yield _bad("bytes that are not UTF-8", _entries(lambda x: [*x[:4], x[4].replace("ó".encode(), b"\xff"), *x[5:]]),
               "headers", "manifest")  # fmt: skip
    deep = b"[" * 5000 + b"\n"
    yield _bad("nested deeply", _entries(lambda x: [*x[:7], deep, *x[8:]]), "headers", "manifest")


def _renamed(line: dict[str, Any]) -> None:
    line["disclosures"]["ip2"] = line["disclosures"].pop("ip")


def _claim_cases() -> Iterator[Case]:
    """What the manifest claims."""
    whole = full_log().bundle()
    claims = json.loads(whole["manifest.json"])
    yield _bad(
        "made at another time, digest not", _with_claim(whole, created_at="2026-11-22T10:20:00.123457Z"), "manifest"
    )
    yield _bad("digest is none", _with_claim(whole, digest=None), "manifest")
    for name, changed in {
        "count": {"count": 27},
        "kinds": {"kinds": claims["kinds"] | {"event": 20, "hold": 3}},
        "kinds unknown": {"kinds": {"events": 28}},
        "kinds negative": {"kinds": claims["kinds"] | {"event": -1}},
        "count as text": {"count": "28"},
        "count true": {"count": True},
        "size huge": {"size": 2**63},
        "size a double": {"size": 28.5},
        "range": {"from_seq": 1, "count": 27},
        "range backwards": {"from_seq": 28, "to_seq": 27},
        "range beyond the size": {"to_seq": 29, "count": 29},
        "filters": {"filters": "action=user.*"},
        "filters a list": {"filters": []},
        "completeness": {"completeness": "not proven: filtered"},
        "pruned after the start": {"pruned_before": 1},
        "pruned is a text": {"pruned_before": "0"},
        "time": {"created_at": "yesterday"},
        "origin": {"origin": "audit.example.com"},
        "origin a number": {"origin": 1},
        "a member more": {"note": ""},
    }.items():
        yield _bad(f"claim: {name}", remade(whole, changed), "manifest")
    without = {name: value for name, value in claims.items() if name != "pruned_before"}
    yield _bad("claim missing", with_manifest(whole, without), "manifest")
    kinds = {"kinds": {"event": 21, "drop": 7}}
    yield _bad("counts of other kinds", remade(whole, kinds), "manifest")
    yield _bad("no manifest", {name: data for name, data in whole.items() if name != "manifest.json"}, "manifest")
    for name, data in (
        ("with spaces", json.dumps(claims).encode()),
        ("a member twice", whole["manifest.json"][:-1] + b',"count":28}'),
        ("a list", b"[]"),
        ("empty", b""),
        ("no JSON", b"{"),
        ("not UTF-8", b"\xff"),
        ("a byte-order mark", b"\xef\xbb\xbf" + whole["manifest.json"]),
        ("without a format", b"{}"),
        ("too long", whole["manifest.json"] + b" " * (1 << 20)),
        ("nested", b"[" * 100_000),
    ):
        yield _bad(f"manifest: {name}", whole | {"manifest.json": data}, "manifest")
    yield _bad("another format version", remade(whole, {"format": "audit-service/evidence/v2"}))
    for name in ("bytes", "sha256"):
        members = json.loads(whole["manifest.json"])["members"]
        members["checkpoint"][name] = {"bytes": 1, "sha256": "0" * 64}[name]
        yield _bad(f"a member's {name}", _resigned(claims | {"members": members}, whole), "members")
    members = json.loads(whole["manifest.json"])["members"]
    listed = {
        "a member unlisted": {"checkpoint": members["checkpoint"]},
        "a member invented": members | {"x": members["checkpoint"]},
    }
    for name, stated in listed.items():
        yield _bad(name, _resigned(claims | {"members": stated}, whole), "members")
    for name, stated in (
        ("no object", []),
        ("no objects", {"checkpoint": 1}),
        ("a hash too short", {"checkpoint": {"bytes": 1, "sha256": "00"}}),
    ):
        yield _bad(f"members: {name}", _resigned(claims | {"members": stated}, whole), "manifest")


def _with_claim(members: Members, **changed: Any) -> Members:
    """A claim changed, and the digest left as it was."""
    claims = json.loads(members["manifest.json"]) | changed
    return members | {"manifest.json": compact(claims)}


def _resigned(claims: dict[str, Any], members: Members) -> Members:
    """A manifest whose digest fits, whatever it lists."""
    told = {name: value for name, value in claims.items() if name != "digest"}
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return members | {"manifest.json": compact(told | {"digest": hashlib.sha256(text.encode()).hexdigest()})}


def _proof_cases() -> Iterator[Case]:
    """The range proof."""
    whole = full_log().bundle(5, 20)
    proof = json.loads(whole["proof.json"])
    wrong = base64.b64encode(bytes(32)).decode()
    for name, changed in {
        "left hash": {"left": [wrong, *proof["left"][1:]]},
        "right hash": {"right": [wrong, *proof["right"][1:]]},
        "left too long": {"left": [*proof["left"], wrong]},
        "right too short": {"right": proof["right"][1:]},
        "for another range": {"from_seq": 6},
        "for another size": {"size": 27},
        "numbers as text": {"size": "28"},
        "with another member": {"x": 1},
        "hashes as numbers": {"left": [1, 2]},
        "hashes in another spelling": {"left": [one[:-2] + "B=" for one in proof["left"]]},
        "without sides": {"left": None},
    }.items():
        yield _bad(f"proof: {name}", remade(whole, proof_json=compact(proof | changed)), "range")
    yield _bad("proof: no JSON", remade(whole, proof_json=b"{"), "range")
    yield _bad("proof: a list", remade(whole, proof_json=b"[]"), "range")
    yield _bad("proof: not UTF-8", remade(whole, proof_json=b"\xff"), "range")
    yield _bad("proof: too long", remade(whole, proof_json=whole["proof.json"] + b" " * 65536), "members")
    yield _bad("proof: missing", remade(whole, proof_json=None), "members")
    # The chain can be forged from the range's first entry on; only the tree is not.
    forged = MadeLog(seed=9)
    for _ in range(28):
        forged.event()
    forged.epoch = 2
    start = forged.bundle(0, 20)
    yield _bad("everything forged but the checkpoint", remade(start, checkpoint=whole["checkpoint"]), "range")


def _checkpoint_cases() -> Iterator[Case]:
    """Whose word the tree is."""
    log = full_log()
    whole = log.bundle()
    stranger = Signer.from_seed(log.origin, OTHER_SEED)
    yield _bad("checkpoint by another key", remade(whole, checkpoint=log.note(signers=[stranger])), "checkpoint")
    yield _bad(
        "an older checkpoint", remade(whole, checkpoint=log.note(27)), "checkpoint", "controls", "forgotten", "range"
    )
    for size, name in ((27, "an older checkpoint, size claimed"), (29, "a later size claimed")):
        yield _bad(
            name, remade(whole, {"size": size}), *(("manifest",) if size < 28 else ("checkpoint", "controls", "range"))
        )
    old = remade(log.bundle(0, 20), checkpoint=log.note(27))
    yield _bad("an older checkpoint for a range within", old, "checkpoint", "controls", "forgotten", "range")
    yield Case("no key pinned", pack(whole), (), exit=2)
    yield Case("a key mistyped", pack(whole), (log.vkey.replace("+6", "+7", 1),), exit=2)
    yield Case("a key that is none", pack(whole), ("key",), exit=2)
    yield Case("a key of another type", pack(whole), (_cosigner_vkey(),), exit=2)
    named = Signer.from_seed(log.origin[:-1] + "1", log.signing_seed)
    yield Case("the key of another epoch", pack(whole), (format_vkey(named.verifier()),), frozenset({"checkpoint"}), 1)
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
        "seventeen thousand signatures": note + note.split(b"\n\n")[1] * 500,
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
        yield _bad(f"checkpoint: {name}", remade(whole, checkpoint=data), *fails)
    yield _bad("checkpoint: missing", remade(whole, checkpoint=None), "members")
    other = MadeLog(log_key="0" * 32, epoch=2)
    for _ in range(28):
        other.event()
    yield _bad(
        "checkpoint of another log",
        remade(whole, checkpoint=other.note()),
        "checkpoint",
        "controls",
        "forgotten",
        "range",
    )
    revoked = MadeLog()
    revoked.event()
    revoked.control("signer", {"event": "revoked", "old": _public(revoked.signer), "from_size": 1})
    yield _bad("signed by a key revoked before", revoked.bundle(), "checkpoint", log=revoked)
    twice = MadeLog()
    twice.event()
    for size in (1, 5):  # a later entry cannot lift what an earlier one revoked
        twice.control("signer", {"event": "revoked", "old": _public(twice.signer), "from_size": size})
    yield _bad("revoked twice", twice.bundle(), "checkpoint", log=twice)


def _public(signer: Signer) -> str:
    """A signer as a `signer` entry names it."""
    return format_vkey(signer.verifier()).partition("+")[2]


def _cosigner_vkey() -> str:
    key = Signer.from_seed("w.example.com", OTHER_SEED).verifier(KeyKind.COSIGNATURE)
    return format_vkey(key)


def _sealed(body: str, kind: str = "event") -> tuple[bytes, tuple[str, ...]]:
    """A bundle of a log that sealed this body."""
    log = MadeLog()
    log.event()
    log.seal(body, kind)
    log.event()
    return pack(log.bundle()), (log.vkey,)


def _sealed_value(value: str) -> tuple[bytes, tuple[str, ...]]:
    """A bundle of a log that sealed this value in a disclosure, with its right commitment."""
    log = MadeLog()
    salt = bytes(range(32))
    body = f'{{"action":"a.b","nonce":"{NONCE}","sd":{{"x":"{commitment("x", salt, value).hex()}"}},"v":1}}'
    log.seal(body, disclosures={"x": (salt, value)})
    return pack(log.bundle()), (log.vkey,)


def _canonical_bodies() -> Iterator[str]:
    rest = f'"nonce":"{NONCE}","v":1}}'
    yield BODY
    yield f'{{"action":"a.b","extra":{{"big":18446744073709551615,"low":-9223372036854775808,"x":[]}},{rest}'
    yield f'{{"action":"é\\n\\"\\\\\\u0001\x7f\u2028","category":"😀",{rest}'
    yield f'{{"action":"","fields":["","a"],{rest}'
    yield f'{{"action":"a","nonce":"{NONCE}","sd":{{}},"v":1,"x":"y"}}'
    yield f'{{"action":"a","nonce":"{NONCE}","source":{{"seq":0}},"v":1}}'
    yield f'{{"action":"a","nonce":"{NONCE}","source":{{"id":"s","seq":-5}},"v":1,"verb":"READ"}}'
    yield f'{{"action":"a","deep":{"[" * 127}{"]" * 127},{rest}'


def _wrong_bodies() -> Iterator[str]:
    rest = f'"nonce":"{NONCE}","v":1}}'
    yield from ("", "[]", "null", '"x"', "1", BODY + " ", " " + BODY, BODY[:-1])
    yield BODY.replace(",", ", ", 1)
    yield f'{{"action":"a","action":"b",{rest}'
    yield f'{{"action":"a","nonce":"{NONCE}","sd":{{}},"sd":{{}},"v":1}}'
    yield f'{{"nonce":"{NONCE}","action":"a","v":1}}'
    yield f'{{"action":"\\u0041",{rest}'
    yield f'{{"action":"\\/",{rest}'
    yield f'{{"action":"\\u000A",{rest}'
    yield f'{{"action":"\\u000a",{rest}'
    yield f'{{"action":"\\ud800",{rest}'
    yield f'{{"action":"a","x":01,{rest}'.replace('"x":01,"nonce"', '"nonce"').replace('"v":1}', '"v":1,"x":01}')
    for number in (
        "-0",
        "1.0",
        "1e5",
        "1E5",
        "0.10",
        "1e400",
        "NaN",
        "Infinity",
        "18446744073709551616",
        "1e21x",
        "+1",
        ".5",
        "1.",
    ):
        yield f'{{"action":"a","nonce":"{NONCE}","v":1,"x":{number}}}'
    yield f'{{"action":"a","deep":{"[" * 128}{"]" * 128},{rest}'
    yield f'{{"action":"a","deep":{"[" * 5000}{"]" * 5000},{rest}'
    yield f'{{"action":1,{rest}'
    yield '{"action":"a","v":1}'
    yield '{"action":"a","nonce":"AAAA","v":1}'
    yield f'{{"action":"a","nonce":"{NONCE[:-3]}B==","v":1}}'
    for commitments in ("null", "[]", '{"ip":1}', '{"ip":"00"}', f'{{"ip":"{"A" * 64}"}}', '""'):
        yield f'{{"action":"a","nonce":"{NONCE}","sd":{commitments},"v":1}}'
    yield f'{{"action":"a","nonce":"{NONCE}","v":1,"\U0001f600":1,"\ufb33":1}}'.replace(
        '"\U0001f600":1,"\ufb33":1', '"\ufb33":1,"\U0001f600":1'
    )
    digest = "0" * 64
    yield f'{{"action":"a","nonce":"{NONCE}","sd":{{"ip":"{digest}","actor":"{digest}"}},"v":1}}'


def _canonical_values() -> Iterator[str]:
    yield from (
        "null",
        "true",
        "0",
        "-1",
        '""',
        "[]",
        "{}",
        "1e+21",
        "1e-7",
        "0.000001",
        "100000000000000000000",
        "0.1",
        "-1.5",
    )
    yield from (
        "5e-324",
        "1.7976931348623157e+308",
        "123456789012345680000",
        "9007199254740993",
        "333333333.3333333",
        "1.5e+300",
    )
    yield '{"a":[1,{"b":null}],"\U0001f600":1,"\ufb33":2}'


def _wrong_values() -> Iterator[str]:
    yield from (
        "",
        " 1",
        "1 ",
        "1.0",
        "1e21",
        "1E+21",
        "1e-07",
        "0.0000001",
        "-0",
        "-0.0",
        "1e400",
        "nul",
        '{"a":1,"a":1}',
        "[1, 2]",
    )
    yield from (
        '{"b":1,"a":1}',
        '{"\ufb33":2,"\U0001f600":1}',
        '"\\u0041"',
        '"\t"',
        "123456789012345678901",
        "0.10",
        "1.50",
        "[1,]",
        "[",
        '"',
    )
    yield from (
        "1.5e300",
        "123456789012345680001",
        "NaN",
        "[" * 129 + "]" * 129,
        "00",
        "- 1",
        "\ufeff1",
        "\u00a01",
        "\u0661",
    )


def _sealed_wrong_cases() -> Iterator[Case]:
    """Logs that were sealed wrong and are signed as they are."""
    for number, body in enumerate(_wrong_bodies()):
        yield Case(f"body sealed wrong {number}", *_sealed(body), frozenset({"bodies"}), 1)
    for number, value in enumerate(_wrong_values()):
        yield Case(f"value sealed wrong {number}", *_sealed_value(value), frozenset({"disclosures"}), 1)
    for version in ("2", "0", "true", '"1"', "1.5", "null", "[]"):
        yield Case(f"body of version {version}", *_sealed(BODY.replace('"v":1', f'"v":{version}')), exit=2)
    yield Case("body of no version", *_sealed("{}"), exit=2)
    for name, fails, given in (
        ("time backwards", "headers", {"at_us": START_US - 1}),
        ("a link to nowhere", "links", {"prev_hash": bytes(32)}),
        ("the hash of another body", "bodies", {"body_hash": bytes(32)}),
        ("an epoch later", "headers", {"origin": format_origin(SERVICE, LOG_KEY, 2)}),
    ):
        log = MadeLog()
        log.event()
        log.seal(BODY, **given)  # type: ignore[arg-type]
        if name == "an epoch later":
            log.epoch = 2
        log.event()
        yield _bad(f"sealed with {name}", log.bundle(), fails, log=log)
    beyond = MadeLog()
    beyond.event()
    beyond.control("resume", {})
    beyond.epoch = 1
    yield _bad("an epoch beyond the checkpoint's", beyond.bundle(), "headers", "controls", log=beyond)
    back = MadeLog()
    back.event()
    back.control("resume", {})
    back.seal(BODY, origin=format_origin(SERVICE, LOG_KEY, 1))
    yield _bad("an epoch that goes back", back.bundle(), "headers", log=back)
    filtered = back.bundle(chosen=lambda made: made.seq != 0)
    yield _bad("an epoch that goes back, filtered", filtered, "headers", log=back)
    apart = MadeLog(epoch=2)
    apart.event()
    apart.event()
    apart.seal(BODY, origin=format_origin(SERVICE, LOG_KEY, 1))
    yield _bad(
        "an epoch that goes back, apart", apart.bundle(1, chosen=lambda made: made.seq in {1, 2}), "headers", log=apart
    )
    gap = apart.bundle(0, chosen=lambda made: made.seq in {0, 2})
    yield _bad("a log that begins with epoch 2", gap, "headers", "links", log=apart)
    same = MadeLog()
    same.event()
    same.control("resume", {})
    same.entries.pop()
    same.epoch = 1
    body = '{"action":"audit.resume","details":{},"nonce":"' + NONCE + '","v":1}'
    same.seal(body, "resume")
    yield _bad("a resume that raises no epoch", same.bundle(), "headers", log=same)
    genesis = MadeLog()
    genesis.seal(BODY, prev_hash=bytes(32))
    yield _bad("a first entry after nothing", genesis.bundle(), "links", log=genesis)
    odd = MadeLog()
    odd.event()
    odd.seal(BODY, prev_hash=bytes(32))
    yield _bad("the first of a range after another than the proof's", odd.bundle(1, 2), "links", log=odd)
    for kind in ("erase", "hold"):
        yield Case(
            f"a control body of another kind, {kind}", *_sealed(BODY, kind), frozenset({"bodies", "controls"}), 1
        )
    lost = MadeLog()
    lost.event()
    lost.control("hold", {})
    lost.entries[1].body = None
    lost.control("drop", {"ranges": [[0, 2]]})
    lost.entries[0].body, lost.entries[0].disclosures = None, {}
    yield _bad("a control entry without its body", lost.bundle(), "bodies", "controls", log=lost)


def _forgotten_cases() -> Iterator[Case]:
    """What is gone without anybody having said so."""
    yield _bad("body gone", _line(7, lambda x: x.update(body=None, disclosures={})), "forgotten")
    yield _bad("disclosure gone", _line(7, lambda x: x["disclosures"].pop("ip")), "forgotten")
    for at, name, bad in (
        (0, "erase", "forgotten"),
        (1, "drop", "forgotten"),
        (2, "resume", "controls"),
        (5, "signer", "controls"),
    ):
        members = _entries(lambda x, at=at: x[:at] + x[at + 1 :], "controls_ndjson")
        yield _bad(f"the {name} entry is missing", members, bad)
    for name, details, fails in (
        ("of another seq", {"items": [[2, "ip", "{ip}"]]}, ("forgotten",)),
        ("of another group", {"items": [[0, "actor", "{ip}"]]}, ("forgotten",)),
        ("of another commitment", {"items": [[0, "ip", "0" * 64]]}, ("forgotten",)),
        ("of what comes later", {"items": [[0, "ip", "{ip}"], [3, "ip", "{ip}"]]}, ("forgotten", "controls")),
        ("without items", {}, ("forgotten", "controls")),
        ("of no number", {"items": [["0", "ip", "{ip}"]]}, ("forgotten", "controls")),
        ("of no hash", {"items": [[0, "ip", 0]]}, ("forgotten", "controls")),
        ("of two", {"items": [[0, "ip"]]}, ("forgotten", "controls")),
        ("of too many", {"items": [[0, "ip", "{ip}"]] * 10_001}, ("forgotten", "controls")),
    ):
        log = _short_log()
        gone = commitment("ip", *log.entries[0].disclosures.pop("ip")).hex()
        log.control("erase", json.loads(json.dumps(details).replace("{ip}", gone)))
        yield _bad(f"an erase {name}", log.bundle(), *fails, log=log)
    for name, drops, fails in (
        ("of another seq", {"ranges": [[1, 3]]}, ("forgotten",)),
        ("of what comes later", {"ranges": [[0, 4]]}, ("forgotten", "controls")),
        ("without ranges", {}, ("forgotten", "controls")),
        ("of empty ranges", {"ranges": [[0, 0], [0, 1]]}, ("forgotten", "controls")),
        ("of ranges out of order", {"ranges": [[1, 2], [0, 1]]}, ("forgotten", "controls")),
        ("of negative numbers", {"ranges": [[-1, 1]]}, ("forgotten", "controls")),
        ("of no numbers", {"ranges": [[0, "1"]]}, ("forgotten", "controls")),
        ("of three", {"ranges": [[0, 1, 2]]}, ("forgotten", "controls")),
        ("of a number", {"ranges": [1]}, ("forgotten", "controls")),
        ("of too many", {"ranges": [[n, n + 1] for n in range(10_001)]}, ("forgotten", "controls")),
    ):
        log = _short_log()
        log.entries[0].body, log.entries[0].disclosures = None, {}
        log.control("drop", drops)
        yield _bad(f"a drop {name}", log.bundle(), *fails, log=log)
    log = _short_log()
    log.erase([(0, "ip")], recorded=False)
    log.drop([(0, 1)], recorded=False)
    log.control("drop", {"ranges": [[0, 1]]})
    other = _short_log()
    other.erase([(0, "ip")], recorded=False)
    other.control("drop", {"ranges": [[0, 1]]})
    yield _bad("a drop does not explain a lost disclosure", other.bundle(), "forgotten", log=other)
    unknown = MadeLog()
    unknown.event()
    unknown.drop([(0, 1)])
    unknown.entries[1].body = (unknown.entries[1].body or "").replace("board", "bored")
    yield _bad(
        "a drop whose body was edited explains nothing",
        unknown.bundle(),
        "bodies",
        "controls",
        "forgotten",
        log=unknown,
    )


def _short_log() -> MadeLog:
    log = MadeLog()
    for _ in range(3):
        log.event()
    return log


def _control_cases() -> Iterator[Case]:
    """Control entries beside the range: they explain, so they must be proven."""
    within = {"from_seq": 0, "to_seq": 20}

    def edited(at: int, change: Callable[[dict[str, Any]], Any]) -> Members:
        return _line(at, change, "controls_ndjson", **within)

    wrong = base64.b64encode(bytes(32)).decode()
    yield _bad(
        "a hold's reason edited", edited(3, lambda x: x.update(body=x["body"].replace("board", "bored"))), "controls"
    )
    yield _bad(
        "a hold's target edited", edited(3, lambda x: x["disclosures"]["target"].__setitem__(1, "{}")), "controls"
    )
    yield _bad("a hold's inclusion edited", edited(3, lambda x: x["inclusion"].__setitem__(0, wrong)), "controls")
    yield _bad("a hold's inclusion too short", edited(3, lambda x: x["inclusion"].pop()), "controls")
    yield _bad("a hold's inclusion gone", edited(3, lambda x: x.pop("inclusion")), "controls")
    yield _bad("a hold's inclusion of no hashes", edited(3, lambda x: x.update(inclusion=[1])), "controls")
    yield _bad("a hold without its body", edited(3, lambda x: x.update(body=None, disclosures={})), "controls")
    yield _bad(
        "a hold of another time",
        edited(3, lambda x: x.update(header=x["header"].replace("\nhold", "0\nhold"))),
        "controls",
    )
    yield _bad(
        "controls swapped",
        _entries(lambda x: [x[1], x[0], *x[2:]], "controls_ndjson", **within),
        "controls",
        "forgotten",
    )
    yield _bad("a control twice", _entries(lambda x: [x[0], *x], "controls_ndjson", **within), "controls")
    yield _bad(
        "controls without a line feed",
        _entries(lambda x: [*x[:-1], x[-1][:-1]], "controls_ndjson", **within),
        "members",
    )
    yield _bad("controls: no JSON", _entries(lambda x: [*x, b"x\n"], "controls_ndjson", **within), "controls")
    yield _bad("controls: missing", remade(full_log().bundle(**within), controls_ndjson=None), "members", "forgotten")
    log = full_log()
    event = log.bundle(chosen=lambda made: made.seq == 27)["entries.ndjson"]
    yield _bad("an event among the controls", _entries(lambda x: [*x, event], "controls_ndjson", **within), "controls")
    forged = MadeLog(seed=3)
    forged.entries = list(log.entries[:7])
    forged.epoch = 2
    fake = forged.control("drop", {"ranges": [[7, 8]]})
    line = json.loads(fake.line(()))
    line["inclusion"] = json.loads(log.bundle(chosen=lambda made: made.seq == 7)["entries.ndjson"])["inclusion"]
    members = _entries(lambda x: [compact(line) + b"\n", *x], "controls_ndjson", **within)
    lines = members["entries.ndjson"].splitlines(keepends=True)
    gone = json.loads(lines[7]) | {"body": None, "disclosures": {}}
    hidden = remade(members, entries_ndjson=b"".join([*lines[:7], compact(gone) + b"\n", *lines[8:]]))
    yield _bad("a forged drop", hidden, "controls", "forgotten")
    for name, told in _wrong_prunes(log):
        made = _epoch_one_log()
        made.control("prune", made.prune_details(5) | told)
        yield _bad(f"a prune {name}", made.bundle(), "controls", log=made)
    for name, signer in (
        ("without an event", {"from_size": 1}),
        ("of an unknown event", {"event": "x", "old": "", "from_size": 1}),
        ("of a size that is none", {"event": "added", "old": "", "from_size": -1}),
        ("revoking no key", {"event": "revoked", "old": "x", "from_size": 1}),
        ("revoking a number", {"event": "revoked", "old": 1, "from_size": 1}),
    ):
        made = _epoch_one_log()
        made.control("signer", signer)
        yield _bad(f"a signer entry {name}", made.bundle(), "controls", log=made)
    made = _epoch_one_log()
    made.seal(f'{{"action":"audit.hold","details":[],"nonce":"{NONCE}","v":1}}', "hold")
    yield _bad("details that are a list", made.bundle(), "bodies", "controls", log=made)
    made = _epoch_one_log()
    made.seal(f'{{"action":"audit.hold","details":{{}},"nonce":"{NONCE}","v":2}}', "hold")
    yield _bad("a control entry of an unknown version", made.bundle(0, 7), log=made)


def _wrong_prunes(log: MadeLog) -> Iterator[tuple[str, dict[str, Any]]]:
    made = _epoch_one_log()
    other = Frontier()
    other.extend(entry.hash for entry in log.entries[1:6])
    stranger = MadeLog(signing_seed=OTHER_SEED)
    stranger.entries = made.entries
    bad_signature = made.note(5).decode()
    yield "of a root that is another's", {"root": "0" * 64}
    yield "of a frontier that is another's", {"frontier": other.to_bytes().hex()}
    yield "whose frontier is too short", {"frontier": made.prune_details(5)["frontier"][:64]}
    yield "whose frontier is no text", {"frontier": 5}
    yield (
        "of nothing",
        {"cut": 0, "frontier": "", "root": hashlib.sha256(b"").hexdigest(), "checkpoint": made.note(0).decode()},
    )
    yield "of what comes later", {"cut": 9}
    yield "whose cut is a text", {"cut": "5"}
    yield "attested for another size", {"checkpoint": made.note(4).decode()}
    yield (
        "attested for another root",
        {
            "checkpoint": made.note(5)
            .decode()
            .replace(made.note(5).decode().split("\n")[2], base64.b64encode(bytes(32)).decode())
        },
    )
    yield "without a checkpoint", {"checkpoint": None}
    yield "whose checkpoint is none", {"checkpoint": "x"}
    yield (
        "whose checkpoint's signature does not hold",
        {"checkpoint": bad_signature[:-4] + ("B" if bad_signature[-4] == "A" else "A") + bad_signature[-3:]},
    )


def _filtered_cases() -> Iterator[Case]:
    """Filtered bundles."""
    log = full_log()

    def chosen(made: Made) -> bool:
        return made.seq % 3 == 0

    whole = log.bundle(chosen=chosen)
    wrong = base64.b64encode(bytes(32)).decode()

    def edited(at: int, change: Callable[[dict[str, Any]], Any]) -> Members:
        return _line(at, change, chosen=chosen)

    yield _bad("filtered: inclusion edited", edited(2, lambda x: x["inclusion"].__setitem__(0, wrong)), "inclusion")
    yield _bad("filtered: inclusion too long", edited(2, lambda x: x["inclusion"].append(wrong)), "inclusion")
    yield _bad("filtered: inclusion gone", edited(2, lambda x: x.pop("inclusion")), "headers", "manifest")
    yield _bad(
        "filtered: inclusion of no hashes", edited(2, lambda x: x.update(inclusion=["A"])), "headers", "manifest"
    )
    yield _bad(
        "filtered: body edited", edited(2, lambda x: x.update(body=x["body"].replace("evt-6", "evt-7"))), "bodies"
    )
    yield _bad("filtered: lines swapped", _entries(lambda x: [x[1], x[0], *x[2:]], chosen=chosen), "headers")
    yield _bad("filtered: a line twice", _entries(lambda x: [x[0], *x], chosen=chosen), "headers", "manifest")
    yield _bad("filtered: a line removed", _entries(lambda x: x[1:], chosen=chosen), "manifest")
    yield _bad("filtered: outside the range", remade(whole, {"to_seq": 27}), "headers")
    yield _bad("filtered: said to be whole", remade(whole, {"filters": None, "completeness": "proven"}), "manifest")
    yield _bad("filtered: completeness claimed", remade(whole, {"completeness": "proven"}), "manifest")
    yield _bad("filtered: with a range proof", remade(whole, proof_json=log.bundle()["proof.json"]), "members")
    yield _bad("filtered: filters edited, digest not", _with_claim(whole, filters="action=user.*"), "manifest")
    yield _bad("filtered: more than the range holds", remade(whole, {"from_seq": 20, "to_seq": 25}), "manifest")


def _spelling_cases() -> Iterator[Case]:
    """Lines that say the same in other bytes."""
    for name, change in {
        "spaces": lambda line: line.replace(b'"header":', b'"header": '),
        "a space at the end": lambda line: line[:-1] + b" \n",
        "a carriage return": lambda line: line[:-1] + b"\r\n",
        "members in another order": lambda line: compact(dict(reversed(json.loads(line).items()))) + b"\n",
        "a member twice": lambda line: line.replace(b'{"seq":7,', b'{"seq":7,"seq":7,'),
        "a group twice": lambda line: line.replace(b'"disclosures":{', b'"disclosures":{"ip":["",""],'),
        "a seq with a zero before": lambda line: line.replace(b'"seq":7', b'"seq":07'),
        "a seq as a double": lambda line: line.replace(b'"seq":7', b'"seq":7.0'),
        "letters escaped": lambda line: line.replace(b'"body":"{', b'"body":"\\u007b'),
        "slashes escaped": lambda line: line.replace(b"audit-service/entry", b"audit-service\\/entry"),
        "line feeds escaped otherwise": lambda line: line.replace(b"v1\\n", b"v1\\u000a"),
        "a byte-order mark": lambda line: b"\xef\xbb\xbf" + line,
    }.items():
        members = _entries(lambda x, change=change: [*x[:7], change(x[7]), *x[8:]])
        yield _bad(f"spelled with {name}", members, "headers", "manifest")


def _zip_cases() -> Iterator[Case]:
    """The container."""
    log = full_log()
    whole, keys = log.bundle(), (log.vkey,)
    members = frozenset({"members"})
    yield Case("an unknown member", pack(whole | {"x": b""}), keys, members, 1)
    yield Case("an absolute name", pack(whole | {"/etc/passwd": b""}), keys, members, 1)
    yield Case("a name that climbs", pack(whole | {"../x": b""}), keys, members, 1)
    renamed = {("entries.ndjson/" if name == "entries.ndjson" else name): data for name, data in whole.items()}
    yield Case("a member as a folder", pack(renamed), keys, members, 1)
    for name, attributes in (
        ("a symbolic link", 0o120777 << 16),
        ("a folder", 0o040755 << 16 | 0x10),
        ("a device", 0o020600 << 16),
    ):
        yield Case(name, _attributed(whole, attributes), keys, members, 1)
    data = pack(whole)
    yield Case("a member twice", _doubled(whole, "proof.json"), keys, members, 1)
    yield Case("two manifests", _doubled(whole, "manifest.json"), keys, frozenset({"manifest"}), 1)
    deflated = pack(whole, deflated=True)
    for name, wrong in {
        "nothing": b"",
        "a text": b"x" * 100,
        "cut short": data[:-1],
        "cut in half": data[: len(data) // 2],
        "something before": b"#!/bin/sh\n" + data,
        "something after": data + b"x",
        "a comment": data[:-2] + b"\x01\x00x",
        "another local name": data.replace(b"proof.json", b"prooF.json", 1),
        "another central name": data[::-1].replace(b"proof.json"[::-1], b"prooF.json"[::-1], 1)[::-1],
        "encrypted": _patched(data, 8, 6, 1),
        "a way of packing nobody knows": _patched(data, 10, 8, 12),
        "strong encryption": _patched(data, 8, 6, 1 << 6),
    }.items():
        yield Case(f"zip: {name}", wrong, keys, exit=2)
    yield Case("zip: a gap between members", _gap(whole), keys, exit=2)
    at = deflated.index(b"entries.ndjson") + len("entries.ndjson")
    broken = deflated[: at + 200] + bytes([deflated[at + 200] ^ 0xFF]) + deflated[at + 201 :]
    yield Case("zip: data that cannot be unpacked", broken, keys, members, 1)
    yield Case("zip: longer than it says", _lying(whole, len(whole["entries.ndjson"]) - 1), keys, members, 1)
    yield Case("zip: shorter than it says", _lying(whole, len(whole["entries.ndjson"]) + 1), keys, members, 1)
    bomb = remade(whole, entries_ndjson=b"\n" * 3_000_000)
    yield Case("lines without end", pack(bomb, deflated=True), keys, frozenset({"headers"}), 1)
    long = remade(whole, entries_ndjson=b"a" * ((32 << 20) + 2) + b"\n")
    yield Case("a line without end", pack(long, deflated=True), keys, members, 1)


def _attributed(members: Members, attributes: int) -> bytes:
    """The zip file with these attributes on its first member."""
    data = bytearray(pack(members))
    at = data.index(b"PK\1\2")
    data[at + 38 : at + 42] = struct.pack("<L", attributes & 0xFFFFFFFF)
    return bytes(data)


def _doubled(members: Members, name: str) -> bytes:
    """A member twice: a name of the same length is put in and then changed."""
    stand_in = "~" * len(name)
    return pack(members | {stand_in: members[name]}).replace(stand_in.encode(), name.encode())


def _patched(data: bytes, central: int, local: int, value: int) -> bytes:
    """A field of two bytes of the first member, in both headers."""
    changed = bytearray(data)
    changed[local : local + 2] = struct.pack("<H", value)
    at = data.index(b"PK\1\2") + central
    changed[at : at + 2] = struct.pack("<H", value)
    return bytes(changed)


def _gap(members: Members) -> bytes:
    """Bytes between the last member and the directory, which the directory's place skips."""
    data = pack(members)
    at = data.index(b"PK\1\2")
    end = bytearray(data[-22:])
    end[16:20] = struct.pack("<L", at + 4)
    return data[:at] + b"gap!" + data[at:-22] + bytes(end)


def _lying(members: Members, size_bytes: int) -> bytes:
    """A deflated bundle whose headers state another length of its first member, in both places."""
    data = bytearray(pack(members, deflated=True))
    for at in (22, data.index(b"PK\1\2") + 24):
        data[at : at + 4] = struct.pack("<L", size_bytes)
    return bytes(data)


def random_cases(count: int, seed: int) -> Iterator[Case]:
    """Mutants of the full bundle and of a filtered one: bits, bytes, lines, JSON values; half with a manifest made to fit.

    What must be found is not known for each, so `exit` is -1: not 0, unless the members are what they were.
    """
    chance = random.Random(seed)  # noqa: S311 - the same mutants for the same seed
    log = full_log()
    sources = [log.bundle(), log.bundle(5, 21), log.bundle(chosen=lambda made: made.seq % 2 == 0)]
    for number in range(count):
        members = chance.choice(sources)
        name = chance.choice(list(members))
        # That a control entry which explains nothing was left out cannot be seen: they are proven one by one.
        changed = _mutated(members[name], chance, whole_lines=name != "controls.ndjson")
        if changed == members[name]:
            continue
        mutant = members | {name: changed}
        if name != "manifest.json" and chance.random() < 0.7:
            mutant = remade(mutant)
        data = pack(mutant, deflated=chance.random() < 0.3, streamed=chance.random() < 0.3)
        yield Case(f"mutant {number} of {name}", data, (log.vkey,), exit=-1)


def _mutated(data: bytes, chance: random.Random, *, whole_lines: bool) -> bytes:
    at = chance.randrange(len(data)) if data else 0
    lines, from_at = data.splitlines(keepends=True), chance.randrange(len(data) or 1)
    line = chance.randrange(len(lines) or 1)
    ways = [
        lambda: data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :],
        lambda: data[:at] + data[at + chance.randrange(1, 9) :],
        lambda: data[:at] + chance.randbytes(chance.randrange(1, 5)) + data[at:],
        lambda: data[:at] + bytes([chance.choice(b'0123456789abcdefAZ"{}[],:\\/ \n')]) + data[at + 1 :],
        lambda: data[:at] + data[from_at : from_at + chance.randrange(1, 40)] + data[at:],
        lambda: b"".join(chance.sample(lines, len(lines))),
    ]
    if whole_lines:
        ways.append(lambda: b"".join(lines[:line] + lines[line + 1 :]))
    return chance.choice(ways)()


def unpacked(data: bytes) -> dict[str, bytes] | None:
    """The members as an ordinary unzip program gets them; None when it cannot."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        EOFError,
        zlib.error,
        RuntimeError,
        ValueError,
        UnicodeDecodeError,
    ):
        return None
