"""What is gone without a word, and control entries that are not what they should be."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from audit_service.core.entry import commitment
from audit_service.core.merkle import Frontier
from tests.support.bundles import (
    MadeLog,
    Members,
    compact,
    remade,
)
from tests.support.evidence_base import NONCE, OTHER_SEED, Case, epoch_one_log, full_log, refused, with_line, with_lines


def forgotten_cases() -> Iterator[Case]:
    """What is gone without anybody having said so."""
    yield refused("body gone", with_line(7, lambda x: x.update(body=None, disclosures={})), "forgotten")
    yield refused("disclosure gone", with_line(7, lambda x: x["disclosures"].pop("ip")), "forgotten")
    for at, name, bad in (
        (0, "erase", "forgotten"),
        (1, "drop", "forgotten"),
        (2, "resume", "controls"),
        (5, "signer", "controls"),
    ):
        members = with_lines(partial(_without, at), "controls_ndjson")
        yield refused(f"the {name} entry is missing", members, bad)
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
        yield refused(f"an erase {name}", log.bundle(), *fails, log=log)
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
        yield refused(f"a drop {name}", log.bundle(), *fails, log=log)
    log = _short_log()
    log.erase([(0, "ip")], recorded=False)
    log.drop([(0, 1)], recorded=False)
    log.control("drop", {"ranges": [[0, 1]]})
    other = _short_log()
    other.erase([(0, "ip")], recorded=False)
    other.control("drop", {"ranges": [[0, 1]]})
    yield refused("a drop does not explain a lost disclosure", other.bundle(), "forgotten", log=other)
    unknown = MadeLog()
    unknown.event()
    unknown.drop([(0, 1)])
    unknown.entries[1].body = (unknown.entries[1].body or "").replace("board", "bored")
    yield refused(
        "a drop whose body was edited explains nothing",
        unknown.bundle(),
        "bodies",
        "controls",
        "forgotten",
        log=unknown,
    )


def _without(at: int, lines: list[bytes]) -> list[bytes]:
    return lines[:at] + lines[at + 1 :]


def _short_log() -> MadeLog:
    log = MadeLog()
    for _ in range(3):
        log.event()
    return log


def control_cases() -> Iterator[Case]:
    """Control entries beside the range: they explain, so they must be proven."""
    within: dict[str, Any] = {"from_seq": 0, "to_seq": 20}

    def edited(at: int, change: Callable[[dict[str, Any]], Any]) -> Members:
        return with_line(at, change, "controls_ndjson", **within)

    wrong = base64.b64encode(bytes(32)).decode()
    yield refused(
        "a hold's reason edited", edited(3, lambda x: x.update(body=x["body"].replace("board", "bored"))), "controls"
    )
    yield refused(
        "a hold's target edited", edited(3, lambda x: x["disclosures"]["target"].__setitem__(1, "{}")), "controls"
    )
    yield refused("a hold's inclusion edited", edited(3, lambda x: x["inclusion"].__setitem__(0, wrong)), "controls")
    yield refused("a hold's inclusion too short", edited(3, lambda x: x["inclusion"].pop()), "controls")
    yield refused("a hold's inclusion gone", edited(3, lambda x: x.pop("inclusion")), "controls")
    yield refused("a hold's inclusion of no hashes", edited(3, lambda x: x.update(inclusion=[1])), "controls")
    yield refused("a hold without its body", edited(3, lambda x: x.update(body=None, disclosures={})), "controls")
    yield refused(
        "a hold of another time",
        edited(3, lambda x: x.update(header=x["header"].replace("\nhold", "0\nhold"))),
        "controls",
    )
    yield refused(
        "controls swapped",
        with_lines(lambda x: [x[1], x[0], *x[2:]], "controls_ndjson", **within),
        "controls",
        "forgotten",
    )
    yield refused("a control twice", with_lines(lambda x: [x[0], *x], "controls_ndjson", **within), "controls")
    yield refused(
        "controls without a line feed",
        with_lines(lambda x: [*x[:-1], x[-1][:-1]], "controls_ndjson", **within),
        "members",
    )
    yield refused("controls: no JSON", with_lines(lambda x: [*x, b"x\n"], "controls_ndjson", **within), "controls")
    yield refused(
        "controls: missing", remade(full_log().bundle(**within), controls_ndjson=None), "members", "forgotten"
    )
    log = full_log()
    event = log.bundle(chosen=lambda made: made.seq == 27)["entries.ndjson"]
    yield refused(
        "an event among the controls", with_lines(lambda x: [*x, event], "controls_ndjson", **within), "controls"
    )
    forged = MadeLog(seed=3)
    forged.entries = list(log.entries[:7])
    forged.epoch = 2
    fake = forged.control("drop", {"ranges": [[7, 8]]})
    line = json.loads(fake.line(()))
    line["inclusion"] = json.loads(log.bundle(chosen=lambda made: made.seq == 7)["entries.ndjson"])["inclusion"]
    members = with_lines(lambda x: [compact(line) + b"\n", *x], "controls_ndjson", **within)
    lines = members["entries.ndjson"].splitlines(keepends=True)
    gone = json.loads(lines[7]) | {"body": None, "disclosures": {}}
    hidden = remade(members, entries_ndjson=b"".join([*lines[:7], compact(gone) + b"\n", *lines[8:]]))
    yield refused("a forged drop", hidden, "controls", "forgotten")
    for name, told in _wrong_prunes(log):
        made = epoch_one_log()
        made.control("prune", made.prune_details(5) | told)
        yield refused(f"a prune {name}", made.bundle(), "controls", log=made)
    for name, signer in (
        ("without an event", {"from_size": 1}),
        ("of an unknown event", {"event": "x", "old": "", "from_size": 1}),
        ("of a size that is none", {"event": "added", "old": "", "from_size": -1}),
        ("revoking no key", {"event": "revoked", "old": "x", "from_size": 1}),
        ("revoking a number", {"event": "revoked", "old": 1, "from_size": 1}),
    ):
        made = epoch_one_log()
        made.control("signer", signer)
        yield refused(f"a signer entry {name}", made.bundle(), "controls", log=made)
    made = epoch_one_log()
    made.seal(f'{{"action":"audit.hold","details":[],"nonce":"{NONCE}","v":1}}', "hold")
    yield refused("details that are a list", made.bundle(), "bodies", "controls", log=made)
    made = epoch_one_log()
    made.seal(f'{{"action":"audit.hold","details":{{}},"nonce":"{NONCE}","v":2}}', "hold")
    yield refused("a control entry of an unknown version", made.bundle(0, 7), log=made)


def _wrong_prunes(log: MadeLog) -> Iterator[tuple[str, dict[str, Any]]]:
    made = epoch_one_log()
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
