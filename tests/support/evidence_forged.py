"""Bundles that somebody changed after they were made, manifest and all; and claims and checkpoints that do not fit."""

import base64
import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

from tests.support.bundles import (
    LOG_KEY,
    START_US,
    Made,
    MadeLog,
    Members,
    compact,
    remade,
    with_manifest,
)
from tests.support.evidence_base import Case, digested, full_log, refused, with_claim, with_line, with_lines


def line_cases() -> Iterator[Case]:
    """Lines removed, added, swapped, edited."""
    yield refused("line removed", with_lines(lambda x: x[:7] + x[8:]), "manifest", "headers", "range")
    yield refused("first line removed", with_lines(lambda x: x[1:]), "manifest", "headers", "range")
    yield refused("last line removed", with_lines(lambda x: x[:-1]), "manifest", "range")
    yield refused("line twice", with_lines(lambda x: [*x[:7], x[7], *x[7:]]), "manifest", "headers", "range")
    yield refused("lines swapped", with_lines(lambda x: [*x[:7], x[8], x[7], *x[9:]]), "headers", "range")
    longer = MadeLog()
    for _ in range(30):
        longer.event()
    yield refused(
        "line added", with_lines(lambda x: [*x, longer.entries[28].line()]), "manifest", "headers", "links", "range"
    )
    other = MadeLog(seed=1, log_key="0" * 32)
    for _ in range(20):
        other.event()
    yield refused(
        "entry of another log", with_lines(lambda x: [*x[:7], other.entries[7].line(), *x[8:]]), "headers", "manifest"
    )
    rival = MadeLog(seed=1)
    for _ in range(20):
        rival.event()
    yield refused(
        "entry of another run", with_lines(lambda x: [*x[:7], rival.entries[7].line(), *x[8:]]), "links", "range"
    )
    yield refused("body edited", with_line(7, lambda x: x.update(body=x["body"].replace("evt-7", "evt-8"))), "bodies")
    yield refused("body of another entry", with_line(1, lambda x: x.update(body=full_log().entries[5].body)), "bodies")
    yield refused(
        "value edited", with_line(7, lambda x: x["disclosures"]["target"].__setitem__(1, "{}")), "disclosures"
    )
    yield refused(
        "salt edited", with_line(7, lambda x: x["disclosures"]["target"].__setitem__(0, "A" * 43 + "=")), "disclosures"
    )
    added = ["A" * 43 + "=", "{}"]
    yield refused("disclosure added", with_line(7, lambda x: x["disclosures"].update(more=added)), "disclosures")
    yield refused(
        "disclosure outlived its body", with_line(8, lambda x: x["disclosures"].update(more=added)), "disclosures"
    )
    yield refused("disclosure under another name", with_line(7, _renamed), "disclosures", "forgotten")
    for part, old, new in (
        ("time", f"{START_US + 2}", f"{START_US + 1}"),
        ("kind", "\nevent\n", "\ndrop\n"),
        ("version", "entry/v1", "entry/v2"),
        ("origin", LOG_KEY, "1" + LOG_KEY[1:]),
        ("epoch", "/1\n", "/0\n"),
    ):
        members = with_line(7, partial(_edit_header, old, new))
        wrong = {"time": ("links", "range", "headers"), "kind": ("bodies", "links", "manifest", "range")}.get(part)
        yield refused(f"header's {part} edited", members, *(wrong or ("headers", "manifest")))
    yield refused(
        "header with a line more", with_line(7, lambda x: x.update(header=x["header"] + "x\n")), "headers", "manifest"
    )
    yield refused("header injection", with_line(7, lambda x: x.update(header=x["header"].replace("event", "event\nevent"))),
               "headers", "manifest")  # fmt: skip
    yield refused("seq unlike the header's", with_line(7, lambda x: x.update(seq=6)), "headers", "manifest")
    yield refused("seq is a text", with_line(7, lambda x: x.update(seq="7")), "headers", "manifest")
    yield refused("body is a number", with_line(7, lambda x: x.update(body=1)), "headers", "manifest")
    yield refused("disclosures are null", with_line(7, lambda x: x.update(disclosures=None)), "headers", "manifest")
    yield refused(
        "disclosure of three", with_line(7, lambda x: x["disclosures"]["target"].append("")), "headers", "manifest"
    )
    yield refused(
        "salt too short",
        with_line(7, lambda x: x["disclosures"]["target"].__setitem__(0, "AAAA")),
        "headers",
        "manifest",
    )
    yield refused("unknown member", with_line(7, lambda x: x.update(note="")), "headers", "manifest")
    yield refused("inclusion where none belongs", with_line(7, lambda x: x.update(inclusion=[])), "headers", "manifest")
    yield refused("not JSON", with_lines(lambda x: [*x[:7], b"{\n", *x[8:]]), "headers", "manifest")
    yield refused("empty line", with_lines(lambda x: [*x[:7], b"\n", *x[7:]]), "headers", "manifest")
    yield refused("no line feed at the end", with_lines(lambda x: [*x[:-1], x[-1][:-1]]), "members")
    yield refused("bytes that are not UTF-8", with_lines(lambda x: [*x[:4], x[4].replace("ó".encode(), b"\xff"), *x[5:]]),
               "headers", "manifest")  # fmt: skip
    deep = b"[" * 5000 + b"\n"
    yield refused("nested deeply", with_lines(lambda x: [*x[:7], deep, *x[8:]]), "headers", "manifest")


def _edit_header(old: str, new: str, line: dict[str, Any]) -> None:
    line["header"] = line["header"].replace(old, new)


def _renamed(line: dict[str, Any]) -> None:
    line["disclosures"]["ip2"] = line["disclosures"].pop("ip")


def claim_cases() -> Iterator[Case]:
    """What the manifest claims."""
    whole = full_log().bundle()
    claims = json.loads(whole["manifest.json"])
    yield refused(
        "made at another time, digest not", with_claim(whole, created_at="2026-11-22T10:20:00.123457Z"), "manifest"
    )
    yield refused("digest is none", with_claim(whole, digest=None), "manifest")
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
        yield refused(f"claim: {name}", remade(whole, changed), "manifest")
    without = {name: value for name, value in claims.items() if name != "pruned_before"}
    yield refused("claim missing", with_manifest(whole, without), "manifest")
    kinds = {"kinds": {"event": 21, "drop": 7}}
    yield refused("counts of other kinds", remade(whole, kinds), "manifest")
    yield refused("no manifest", {name: data for name, data in whole.items() if name != "manifest.json"}, "manifest")
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
        yield refused(f"manifest: {name}", whole | {"manifest.json": data}, "manifest")
    yield refused("another format version", remade(whole, {"format": "audit-service/evidence/v2"}))
    for member, name in product(("checkpoint", "entries.ndjson", "controls.ndjson", "proof.json"), ("bytes", "sha256")):
        members = json.loads(whole["manifest.json"])["members"]
        members[member][name] = {"bytes": 1, "sha256": "0" * 64}[name]
        yield refused(f"{name} of {member}", digested(claims | {"members": members}, whole), "members")
    members = json.loads(whole["manifest.json"])["members"]
    listed = {
        "a member unlisted": {"checkpoint": members["checkpoint"]},
        "a member invented": members | {"x": members["checkpoint"]},
    }
    for name, stated in listed.items():
        yield refused(name, digested(claims | {"members": stated}, whole), "members")
    for name, stated in (
        ("no object", []),
        ("no objects", {"checkpoint": 1}),
        ("a hash too short", {"checkpoint": {"bytes": 1, "sha256": "00"}}),
    ):
        yield refused(f"members: {name}", digested(claims | {"members": stated}, whole), "manifest")


def proof_cases() -> Iterator[Case]:
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
        yield refused(f"proof: {name}", remade(whole, proof_json=compact(proof | changed)), "range")
    yield refused("proof: no JSON", remade(whole, proof_json=b"{"), "range")
    yield refused("proof: a list", remade(whole, proof_json=b"[]"), "range")
    yield refused("proof: not UTF-8", remade(whole, proof_json=b"\xff"), "range")
    yield refused("proof: too long", remade(whole, proof_json=whole["proof.json"] + b" " * 65536), "members")
    yield refused("proof: missing", remade(whole, proof_json=None), "members")
    # The chain can be forged from the range's first entry on; only the tree is not.
    forged = MadeLog(seed=9)
    for _ in range(28):
        forged.event()
    forged.epoch = 2
    start = forged.bundle(0, 20)
    yield refused("everything forged but the checkpoint", remade(start, checkpoint=whole["checkpoint"]), "range")


def filtered_cases() -> Iterator[Case]:
    """Filtered bundles."""
    log = full_log()

    def chosen(made: Made) -> bool:
        return made.seq % 3 == 0

    whole = log.bundle(chosen=chosen)
    wrong = base64.b64encode(bytes(32)).decode()

    def edited(at: int, change: Callable[[dict[str, Any]], Any]) -> Members:
        return with_line(at, change, chosen=chosen)

    yield refused("filtered: inclusion edited", edited(2, lambda x: x["inclusion"].__setitem__(0, wrong)), "inclusion")
    yield refused("filtered: inclusion too long", edited(2, lambda x: x["inclusion"].append(wrong)), "inclusion")
    yield refused("filtered: inclusion gone", edited(2, lambda x: x.pop("inclusion")), "headers", "manifest")
    yield refused(
        "filtered: inclusion of no hashes", edited(2, lambda x: x.update(inclusion=["A"])), "headers", "manifest"
    )
    yield refused(
        "filtered: body edited", edited(2, lambda x: x.update(body=x["body"].replace("evt-6", "evt-7"))), "bodies"
    )
    yield refused("filtered: lines swapped", with_lines(lambda x: [x[1], x[0], *x[2:]], chosen=chosen), "headers")
    yield refused("filtered: a line twice", with_lines(lambda x: [x[0], *x], chosen=chosen), "headers", "manifest")
    yield refused("filtered: a line removed", with_lines(lambda x: x[1:], chosen=chosen), "manifest")
    yield refused("filtered: outside the range", remade(whole, {"to_seq": 27}), "headers")
    yield refused("filtered: said to be whole", remade(whole, {"filters": None, "completeness": "proven"}), "manifest")
    yield refused("filtered: completeness claimed", remade(whole, {"completeness": "proven"}), "manifest")
    yield refused("filtered: with a range proof", remade(whole, proof_json=log.bundle()["proof.json"]), "members")
    yield refused("filtered: filters edited, digest not", with_claim(whole, filters="action=user.*"), "manifest")
    yield refused("filtered: more than the range holds", remade(whole, {"from_seq": 20, "to_seq": 25}), "manifest")


def spelling_cases() -> Iterator[Case]:
    """Lines that say the same in other bytes."""
    spellings: dict[str, Callable[[bytes], bytes]] = {
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
    }
    for name, change in spellings.items():
        members = with_lines(partial(_respell, change))
        yield refused(f"spelled with {name}", members, "headers", "manifest")


def _respell(change: Callable[[bytes], bytes], lines: list[bytes]) -> list[bytes]:
    return [*lines[:7], change(lines[7]), *lines[8:]]
