"""The golden bytes of DESIGN section 3, made by an independent program: `tests/vectors/entries.json`."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PATH = Path(__file__).resolve().parents[1] / "vectors" / "entries.json"


@dataclass(frozen=True, slots=True)
class Disclosure:
    """One disclosure of a vector. `value` is the canonical JSON text."""

    salt: bytes
    value: str
    commitment: bytes

    @property
    def stored(self) -> bytes:
        """The bytes of the column."""
        return self.salt + self.value.encode()


@dataclass(frozen=True, slots=True)
class Vector:
    """One entry with everything that is derived from it."""

    seq: int
    recorded_at_us: int
    kind: str
    body: str
    body_hash: bytes
    disclosures: dict[str, Disclosure]
    header: bytes
    prev_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Tree:
    """Root and frontier over the first `size` entries."""

    size: int
    root: bytes
    frontier: bytes


@dataclass(frozen=True, slots=True)
class Vectors:
    """The whole file."""

    origin: str
    genesis_prev: bytes
    entries: tuple[Vector, ...]
    trees: tuple[Tree, ...]

    @property
    def service_name(self) -> str:
        """The part of the origin before `/t/`."""
        return self.origin.partition("/t/")[0]

    @property
    def log_key(self) -> str:
        """The 128-bit log id in hex."""
        return self.origin.split("/")[-2]


@cache
def load_vectors() -> Vectors:
    """The vectors, parsed once."""
    content = json.loads(PATH.read_text("utf-8"))
    return Vectors(
        origin=content["origin"],
        genesis_prev=bytes.fromhex(content["genesis_prev"]),
        entries=tuple(_vector(item) for item in content["entries"]),
        trees=tuple(
            Tree(item["size"], bytes.fromhex(item["root"]), bytes.fromhex("".join(item["frontier"])))
            for item in content["trees"]
        ),
    )


def _vector(item: dict[str, Any]) -> Vector:
    return Vector(
        seq=item["seq"],
        recorded_at_us=item["recorded_at_us"],
        kind=item["kind"],
        body=item["body"],
        body_hash=bytes.fromhex(item["body_hash"]),
        disclosures={
            group: Disclosure(bytes.fromhex(one["salt"]), one["value"], bytes.fromhex(one["commitment"]))
            for group, one in item["disclosures"].items()
        },
        header=item["header"].encode(),
        prev_hash=bytes.fromhex(item["prev_hash"]),
        hash=bytes.fromhex(item["hash"]),
    )
