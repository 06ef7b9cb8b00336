"""Bundles of evidence for the offline verifiers: a small log in memory, bundles of it, and forgeries of both.

It stands for the server's own writer, so it seals with `core` and shares nothing with the verifiers. `MadeLog.seal` takes
whatever it is told, so that a log can be wrong in one place and right, chained and signed, everywhere else.
"""

import base64
import hashlib
import io
import json
import random
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from audit_service.core import chain
from audit_service.core.canonical import JSONValue, canonical_bytes, canonical_text
from audit_service.core.checkpoint import Checkpoint, format_checkpoint
from audit_service.core.entry import ENTROPY_BYTES, NONCE_BYTES, SALT_BYTES, commitment, prepare
from audit_service.core.merkle import Frontier, leaves_reader, prove_inclusion, prove_range
from audit_service.core.note import Note, cosign, format_note, sign
from audit_service.core.vkey import Signer, format_vkey

SERVICE, LOG_KEY = "audit.example.com", "7f3a9c0d5e6b41728394a5b6c7d8e9f0"
SEED = bytes([7]) * 32
START_US = 1_795_338_900_000_000
Members = dict[str, bytes]


@dataclass(slots=True)
class Made:
    """An entry of a made log. `disclosures`: group → (salt, value)."""

    seq: int
    kind: str
    header: str
    body: str | None
    disclosures: dict[str, tuple[bytes, str]]
    hash: bytes

    def line(self, inclusion: Sequence[bytes] | None = None) -> bytes:
        """The entry as a line of a bundle, LF included."""
        shown: dict[str, Any] = {
            "seq": self.seq,
            "header": self.header,
            "body": self.body,
            "disclosures": {group: [_base64(salt), value] for group, (salt, value) in self.disclosures.items()},
        }
        if inclusion is not None:
            shown["inclusion"] = [_base64(one) for one in inclusion]
        return compact(shown) + b"\n"


@dataclass(slots=True)
class MadeLog:
    """A log in memory. `seed` makes it the same every time."""

    seed: int = 0
    log_key: str = LOG_KEY
    signing_seed: bytes = SEED
    epoch: int = 1
    entries: list[Made] = field(default_factory=list)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - the same log every time

    @property
    def origin(self) -> str:
        """The origin at the log's epoch."""
        return chain.format_origin(SERVICE, self.log_key, self.epoch)

    @property
    def signer(self) -> Signer:
        """The key that signs this log."""
        return Signer.from_seed(self.origin, self.signing_seed)

    @property
    def vkey(self) -> str:
        """What to pin."""
        return format_vkey(self.signer.verifier())

    def event(self, event: dict[str, JSONValue] | None = None) -> Made:
        """Append an event; by default one of several shapes."""
        number = len(self.entries)
        given = some_event(number) if event is None else event
        changes = cast("list[dict[str, JSONValue]]", given.pop("changes", []))
        fields = sorted({str(change["path"]).split("/")[1] for change in changes})
        made = prepare(given, changes, fields, self._random.randbytes(ENTROPY_BYTES))
        disclosures = {
            group: (salted[:SALT_BYTES], salted[SALT_BYTES:].decode()) for group, salted in made.disclosures.items()
        }
        return self.seal(made.body, disclosures=disclosures)

    def control(self, kind: str, details: dict[str, Any], **more: Any) -> Made:
        """Append a control entry."""
        if kind == "resume":
            self.epoch += 1
        disclosures = {group: (self._random.randbytes(SALT_BYTES), value) for group, value in more.pop("target", ())}
        body = {
            "v": 1,
            "nonce": _base64(self._random.randbytes(NONCE_BYTES)),
            "id": f"019ab3c4-0000-7000-8000-{len(self.entries):012x}",
            "action": f"audit.{kind}",
            "verb": "OTHER",
            "category": "audit",
            "occurred_at": "2026-11-22T10:15:00.000000Z",
            "outcome": "success",
            "source": {"id": "audit-service"},
            "by": "cli",
            "reason": "asked for by “the board”",
            "details": details,
            **more,
        }
        if disclosures:
            body["sd"] = {group: commitment(group, *one).hex() for group, one in disclosures.items()}
        return self.seal(canonical_text(cast("JSONValue", body)), kind, disclosures)

    def seal(
        self,
        body: str,
        kind: str = "event",
        disclosures: dict[str, tuple[bytes, str]] | None = None,
        *,
        at_us: int | None = None,
        prev_hash: bytes | None = None,
        body_hash: bytes | None = None,
        origin: str | None = None,
    ) -> Made:
        """Append exactly this; what is given instead of the right value makes a log that was sealed wrong."""
        seq = len(self.entries)
        before = self.entries[-1].hash if self.entries else chain.genesis_hash(self.origin)
        header = chain.header_bytes(
            origin or self.origin,
            seq,
            START_US + seq // 3 if at_us is None else at_us,  # several entries a microsecond
            kind,
            before if prev_hash is None else prev_hash,
            chain.body_hash(body) if body_hash is None else body_hash,
        )
        made = Made(seq, kind, header.decode(), body, disclosures or {}, chain.entry_hash(header))
        self.entries.append(made)
        return made

    def drop(self, ranges: Sequence[tuple[int, int]], *, recorded: bool = True) -> None:
        """Bodies and disclosures of the events in these ranges go; a `drop` entry says so."""
        for start, stop in ranges:
            for entry in self.entries[start:stop]:
                if entry.kind == "event":
                    entry.body, entry.disclosures = None, {}
        if recorded:
            count = sum(stop - start for start, stop in ranges)
            self.control("drop", {"ranges": [list(one) for one in ranges], "count": count, "policy": "clear"})

    def erase(self, items: Iterable[tuple[int, str]], *, recorded: bool = True) -> None:
        """Disclosures go; an `erase` entry names their commitments."""
        named = []
        for seq, group in sorted(items):
            named.append([seq, group, commitment(group, *self.entries[seq].disclosures.pop(group)).hex()])
        if recorded:
            self.control("erase", {"items": named, "request": hashlib.sha256(b"request-1").hexdigest()})

    def prune_details(self, cut: int, **instead: Any) -> dict[str, Any]:
        """What a `prune` entry says of a cut."""
        frontier = Frontier()
        frontier.extend(entry.hash for entry in self.entries[:cut])
        told = {
            "cut": cut,
            "root": frontier.root().hex(),
            "frontier": frontier.to_bytes().hex(),
            "prev_hash": self.entries[cut - 1].hash.hex(),
            "last_recorded_at_us": START_US,
            "epoch": 1,
            "count": cut,
            "first_at": "2026-11-22T10:15:00.000000Z",
            "last_at": "2026-11-22T10:15:00.000000Z",
            "checkpoint": self.note(cut).decode(),
            "archive": "00" * 32,
            "signers": [self.vkey],
        }
        return told | instead

    def note(
        self, size: int | None = None, signers: Sequence[Signer] | None = None, cosigners: Sequence[Signer] = ()
    ) -> bytes:
        """The checkpoint of a size, signed by whoever is told to."""
        end = len(self.entries) if size is None else size
        frontier = Frontier()
        frontier.extend(entry.hash for entry in self.entries[:end])
        text = format_checkpoint(Checkpoint(self.origin, end, frontier.root()))
        lines = [sign(text, one) for one in ([self.signer] if signers is None else signers)]
        lines += [cosign(text, one, 1_790_000_000) for one in cosigners]
        return format_note(Note(text, tuple(lines))).encode()

    def bundle(
        self,
        from_seq: int = 0,
        to_seq: int | None = None,
        *,
        size: int | None = None,
        chosen: Callable[[Made], bool] | None = None,
        signers: Sequence[Signer] | None = None,
        **manifest: Any,
    ) -> Members:
        """The members of a bundle of [from_seq, to_seq); with `chosen`, a filtered one. `manifest` replaces claims."""
        end = len(self.entries) if size is None else size
        stop = end if to_seq is None else to_seq
        reader = leaves_reader([entry.hash for entry in self.entries[:end]])
        selected = [entry for entry in self.entries[from_seq:stop] if chosen is None or chosen(entry)]
        controls = [entry for entry in self.entries[:end] if entry.kind != "event"]
        members = {
            "entries.ndjson": b"".join(
                entry.line(None if chosen is None else prove_inclusion(entry.seq, end, reader)) for entry in selected
            ),
            "controls.ndjson": b"".join(entry.line(prove_inclusion(entry.seq, end, reader)) for entry in controls),
            "checkpoint": self.note(end, signers),
        }
        if chosen is None:
            proof = prove_range(from_seq, stop, end, reader)
            sides = {"left": [_base64(one) for one in proof.left], "right": [_base64(one) for one in proof.right]}
            members["proof.json"] = compact({"from_seq": from_seq, "to_seq": stop, "size": end, **sides})
        claims: dict[str, Any] = {
            "format": "audit-service/evidence/v1",
            "origin": self.origin,
            "from_seq": from_seq,
            "to_seq": stop,
            "size": end,
            "count": len(selected),
            "kinds": dict(Counter(entry.kind for entry in selected)),
            "filters": None if chosen is None else "action=server.*",
            "completeness": "proven" if chosen is None else "not proven: filtered",
            "pruned_before": None,
            "created_at": "2026-11-22T10:20:00.123456Z",
        }
        return with_manifest(members, claims | manifest)


def with_manifest(members: Members, claims: dict[str, Any]) -> Members:
    """The members with a manifest that fits them; what a forger does last."""
    others = {name: data for name, data in members.items() if name != "manifest.json"}
    listed = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in others.items()}
    told = {name: value for name, value in claims.items() if name != "digest"} | {"members": listed}
    digest = hashlib.sha256(canonical_bytes(cast("JSONValue", told))).hexdigest()
    return others | {"manifest.json": compact(told | {"digest": digest})}


def remade(members: Members, claims: dict[str, Any] | None = None, **replaced: bytes | None) -> Members:
    """The bundle with members replaced (None: taken out) and claims changed, and its manifest made to fit.

    A member is named with `_` for its dot: `entries_ndjson`.
    """
    names = {name.replace(".", "_"): name for name in (*members, "proof.json")}
    changed = members | {names[name]: data for name, data in replaced.items() if data is not None}
    kept = {name: data for name, data in changed.items() if replaced.get(name.replace(".", "_"), b"") is not None}
    return with_manifest(kept, json.loads(members["manifest.json"]) | (claims or {}))


def pack(members: Members, *, deflated: bool = False, streamed: bool = False) -> bytes:
    """The zip file; `streamed`: as written to a pipe, lengths after the data."""
    target = io.BytesIO()
    sink: Any = _Pipe(target) if streamed else target
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            with archive.open(_info(name, archive), "w", force_zip64=streamed) as member:
                member.write(data)
    return target.getvalue()


def _info(name: str, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (2026, 11, 22, 10, 20, 0))
    info.compress_type = archive.compression
    info.external_attr = 0o100600 << 16
    return info


class _Pipe:
    """A target without seek or tell."""

    def __init__(self, target: io.BytesIO) -> None:
        self.write = target.write
        self.flush = target.flush


def compact(value: object) -> bytes:
    """JSON as a bundle spells it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def some_event(number: int) -> dict[str, JSONValue]:
    """Events of several shapes: many groups, none, odd characters, numbers of every kind."""
    plain: dict[str, JSONValue] = {
        "id": f"panel-7:evt-{number}",
        "action": ("server.created", "schedule.updated", "user.login")[number % 3],
        "verb": ("CREATE", "UPDATE", "LOGIN")[number % 3],
        "category": "servers",
        "occurred_at": "2026-11-22T10:15:00.123456Z",
        "outcome": "success",
        "source": {"id": "panel-7", "seq": 2**62 + number} if number % 2 else {"id": "panel-7"},
    }
    if number % 4 == 1:
        return plain
    shown: dict[str, JSONValue] = plain | {
        "server_id": f"s{number % 5}",
        "actor": {"type": "user", "id": f"u{number % 7}", "name": 'Ana "Gómez" \\ 😀', "email": "ana@example.com"},
        "context": {"ip": "203.0.113.9", "user_agent": "tab\t, line\n, \x01 and \x7f", "request_id": "r-1"},
        "target": {"type": "schedule", "id": str(number), "name": "nightly\u2028"},
        "metadata": {
            "\ufb33": 1,
            "😀": 1e21,
            "amount": "12.50",
            "small": 1e-7,
            "rate": 0.1,
            "big": 2**64 - 1,
            "x": 1e20,
        },
        "changes": [{"path": "/a/b", "op": "replace", "old": [1, None, True], "new": {"z": -1.5, "a": {}}}],
    }
    if number % 4 == 2:
        shown |= {"action": 'odd"action\n', "fields": []}
    return shown


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
