"""What the cases for the offline verifiers are made of: the log they start from, and ways to change a bundle of it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from audit_service.core.vkey import KeyKind, Signer, format_vkey
from tests.support.bundles import (
    MadeLog,
    Members,
    compact,
    pack,
    remade,
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


def epoch_one_log() -> MadeLog:
    log = MadeLog()
    for _ in range(7):
        log.event()
    return log


def refused(name: str, members: Members, *fails: str, log: MadeLog | None = None) -> Case:
    """A bundle that fails exactly these checks; without any, one of which nothing can be said."""
    return Case(name, pack(members), ((log or full_log()).vkey,), frozenset(fails), 1 if fails else 2)


def with_lines(change: Callable[[list[bytes]], list[bytes]], name: str = "entries_ndjson", **bundle: Any) -> Members:
    """The full bundle with the lines of a member changed, and the manifest made to fit."""
    members = full_log().bundle(**bundle)
    lines = members[name.replace("_", ".")].splitlines(keepends=True)
    replaced: dict[str, Any] = {name: b"".join(change(lines))}
    return remade(members, **replaced)


def with_line(at: int, change: Callable[[dict[str, Any]], Any], name: str = "entries_ndjson", **bundle: Any) -> Members:
    """The full bundle with one line changed as JSON."""

    def edit(lines: list[bytes]) -> list[bytes]:
        value = json.loads(lines[at])
        change(value)
        return [*lines[:at], compact(value) + b"\n", *lines[at + 1 :]]

    return with_lines(edit, name, **bundle)


def with_claim(members: Members, **changed: Any) -> Members:
    """A claim changed, and the digest left as it was."""
    claims = json.loads(members["manifest.json"]) | changed
    return members | {"manifest.json": compact(claims)}


def digested(claims: dict[str, Any], members: Members) -> Members:
    """A manifest whose digest fits, whatever it lists."""
    told = {name: value for name, value in claims.items() if name != "digest"}
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return members | {"manifest.json": compact(told | {"digest": hashlib.sha256(text.encode()).hexdigest()})}


def public_text(signer: Signer) -> str:
    """A signer as a `signer` entry names it."""
    return format_vkey(signer.verifier()).partition("+")[2]


def cosigner_vkey() -> str:
    key = Signer.from_seed("w.example.com", OTHER_SEED).verifier(KeyKind.COSIGNATURE)
    return format_vkey(key)
