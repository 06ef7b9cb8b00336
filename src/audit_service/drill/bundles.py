"""Attacks on a bundle of evidence on its way to a stranger (A12): its manifest is made to fit again each time, as an attacker would.

The genuine bundle is of a log in which a body was dropped and a disclosure erased, so that its control entries matter.
"""

import io
import json
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Any, TypeAlias
from zipfile import ZipFile

from audit_service import retention
from audit_service.core.checkpoint import parse_checkpoint, sign_checkpoint
from audit_service.core.forgetting import Events
from audit_service.core.note import format_note, parse_note
from audit_service.core.vkey import Signer
from audit_service.drill.case import INCOMPLETE, Case, Commit, Committed, kinds
from audit_service.drill.dba import Dba, flip
from audit_service.drill.scratch import Scratch
from audit_service.drill.twins import AUTHOR, make_bundle, sign_now
from audit_service.ingest import new_id

Members: TypeAlias = dict[str, bytes]
_ENTRIES, _CONTROLS = "entries.ndjson", "controls.ndjson"
# Where in the bundle lines are attacked: above what was dropped.
_AT = 50
_DROPPED = 10


async def genuine(scratch: Scratch) -> Committed:
    """The bundle as the service gives it out."""
    return Committed(bundle=await _genuine(scratch))


async def forge(scratch: Scratch, change: Callable[[Members, Scratch], None]) -> Committed:
    """The bundle with something changed in its members."""
    with ZipFile(io.BytesIO(await _genuine(scratch))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members, scratch)
    return Committed(bundle=_packed(members))


async def _genuine(scratch: Scratch) -> bytes:
    dba = Dba(scratch.admin, scratch.log)
    erased = (await dba.row(await dba.find_full(_AT, scratch.signed)))["id"]
    await retention.clear(scratch.keeping, scratch.log.log_id, AUTHOR, to_seq=_DROPPED)
    subject = Events(frozenset({erased}))
    await retention.erase(
        scratch.keeping, scratch.log.log_id, AUTHOR, subject, reference=new_id(), groups=frozenset({"actor"})
    )
    await sign_now(scratch)
    return await make_bundle(scratch)


def _packed(members: Members) -> bytes:
    """A zip file whose manifest says what the members are."""
    claims = json.loads(members["manifest.json"])
    claims["members"] = {
        name: {"bytes": len(data), "sha256": sha256(data).hexdigest()}
        for name, data in members.items()
        if name != "manifest.json"
    }
    claims.pop("digest")
    told = json.dumps(claims, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    claims["digest"] = sha256(told.encode()).hexdigest()
    members["manifest.json"] = json.dumps(claims, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    file = io.BytesIO()
    with ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


# -- what is changed -----------------------------------------------------------------------------------------


def _claim(members: Members, _: Scratch, **claims: Any) -> None:
    members["manifest.json"] = json.dumps(json.loads(members["manifest.json"]) | claims).encode()


def _edit_line(members: Members, _: Scratch, edit: Callable[[dict[str, Any]], None]) -> None:
    lines = members[_ENTRIES].splitlines(keepends=True)
    at = next(at for at in range(_AT + 1, len(lines)) if b'"target"' in lines[at])
    line = json.loads(lines[at])
    edit(line)
    lines[at] = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    members[_ENTRIES] = b"".join(lines)


def _remove_line(members: Members, _: Scratch) -> None:
    """One entry less, and every count that says so made to fit."""
    lines = members[_ENTRIES].splitlines(keepends=True)
    kind = json.loads(lines.pop(_AT))["header"].split("\n")[4]
    members[_ENTRIES] = b"".join(lines)
    claims = json.loads(members["manifest.json"])
    claims["count"] -= 1
    claims["kinds"][kind] -= 1
    members["manifest.json"] = json.dumps(claims).encode()


def _cut_lines(members: Members, scratch: Scratch) -> None:
    """The last entries less, and the range said to end there."""
    lines = members[_ENTRIES].splitlines(keepends=True)
    for gone in (json.loads(line)["header"].split("\n")[4] for line in lines[scratch.signed :]):
        claims = json.loads(members["manifest.json"])
        claims["kinds"][gone] -= 1
        claims["kinds"] = {kind: count for kind, count in claims["kinds"].items() if count}
        members["manifest.json"] = json.dumps(claims).encode()
    members[_ENTRIES] = b"".join(lines[: scratch.signed])
    _claim(members, scratch, to_seq=scratch.signed, count=scratch.signed)
    proof = json.loads(members["proof.json"]) | {"to_seq": scratch.signed}
    members["proof.json"] = json.dumps(proof, separators=(",", ":")).encode()


def _swap_lines(members: Members, _: Scratch) -> None:
    lines = members[_ENTRIES].splitlines(keepends=True)
    lines[_AT], lines[_AT + 1] = lines[_AT + 1], lines[_AT]
    members[_ENTRIES] = b"".join(lines)


def _flip_header(line: dict[str, Any]) -> None:
    header = line["header"].split("\n")
    header[3] = str(int(header[3]) ^ 1)
    line["header"] = "\n".join(header)


def _flip_body(line: dict[str, Any]) -> None:
    line["body"] = flip(line["body"])


def _flip_disclosure(line: dict[str, Any]) -> None:
    salt, value = line["disclosures"]["target"]
    line["disclosures"]["target"] = [salt, flip(value)]


def _hide_disclosure(line: dict[str, Any]) -> None:
    del line["disclosures"]["target"]


def _hide_controls(members: Members, _: Scratch, action: str) -> None:
    """The control entries of one kind less; what they stand for in the range stays."""
    lines = members[_CONTROLS].splitlines(keepends=True)
    members[_CONTROLS] = b"".join(line for line in lines if action.encode() not in line)


def _resign(members: Members, _: Scratch) -> None:
    """The checkpoint signed by a stranger, under the log's name."""
    checkpoint = parse_checkpoint(parse_note(members["checkpoint"].decode()).text)
    stranger = Signer.from_seed(checkpoint.origin, bytes(32))
    members["checkpoint"] = format_note(sign_checkpoint(checkpoint, [stranger])).encode()


def _edit_root(members: Members, _: Scratch) -> None:
    """The checkpoint's root, its signature left."""
    note = members["checkpoint"].decode().split("\n")
    note[2] = b64encode(bytes(32)).decode()
    members["checkpoint"] = "\n".join(note).encode()


def _older_checkpoint(members: Members, scratch: Scratch) -> None:
    """A genuine checkpoint of the log, of another size."""
    members["checkpoint"] = scratch.notes[-1].encode()


def _edit_proof(members: Members, _: Scratch) -> None:
    proof = json.loads(members["proof.json"])
    proof["left"] = [*proof["left"], "A" * 43 + "="]
    members["proof.json"] = json.dumps(proof, separators=(",", ":")).encode()


def _line(edit: Callable[[dict[str, Any]], None]) -> Callable[[Members, Scratch], None]:
    return partial(_edit_line, edit=edit)


def _case(name: str, change: Callable[[Members, Scratch], None], *found: str) -> Case:
    commit: Commit = partial(forge, change=change)
    return Case(name, "A12", commit, {"bundle": kinds(*found)})


def bundle_cases() -> list[Case]:
    """Every attack on a bundle, and the bundle that nobody attacked."""
    return [
        Case("a genuine bundle, with what was dropped and erased", "A12", genuine, {"bundle": kinds()}, lawful=True),
        _case("a bundle with an entry left out, its counts made to fit", _remove_line, "manifest"),
        _case("a bundle cut at its end, its range made to fit", _cut_lines, "range"),
        _case("a bundle with two entries swapped", _swap_lines, "headers"),
        _case("a bundle whose count is changed", partial(_claim, count=7), "manifest"),
        _case("a bundle that claims to be filtered", partial(_claim, filters="actor=ana"), "manifest"),
        _case("a bundle of a format nobody knows", partial(_claim, format="audit-service/evidence/v9"), INCOMPLETE),
        _case("one bit of a header in a bundle", _line(_flip_header), "links", "range"),
        _case("one bit of a body in a bundle", _line(_flip_body), "bodies"),
        _case("one bit of a disclosure in a bundle", _line(_flip_disclosure), "disclosures"),
        _case("a disclosure withheld from a bundle", _line(_hide_disclosure), "forgotten"),
        _case("a bundle without the `drop` entry", partial(_hide_controls, action="audit.drop"), "forgotten"),
        _case("a bundle without the `erase` entry", partial(_hide_controls, action="audit.erase"), "forgotten"),
        _case("a bundle signed by a stranger", _resign, "checkpoint"),
        _case("a bundle with another root in its checkpoint", _edit_root, "checkpoint", "range"),
        _case("a bundle with an older checkpoint of the log", _older_checkpoint, "checkpoint"),
        _case("a bundle with another range proof", _edit_proof, "range"),
    ]
