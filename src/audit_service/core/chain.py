r"""The hash chain: how a header is written, hashed and linked (DESIGN 3.2). The second implementation beside
`audit.append_entries` in PostgreSQL; a property test holds the two together.

A header is seven lines, each ended by LF, in UTF-8:

    audit-service/entry/v1
    <origin>
    <seq, decimal>
    <recorded_at, integer microseconds since the Unix epoch>
    <kind>
    <prev: hex hash of entry seq-1, or the genesis hash for seq 0>
    <body_hash: hex SHA-256 of "audit-service/body/v1\n" followed by the body>

and the entry's hash is SHA-256(0x00 || header): the chain link and the RFC 6962 leaf hash, one value.

>>> head = Head.genesis("audit.example.com/t/7f3a9c0d5e6b41728394a5b6c7d8e9f0/1")
>>> head.last_hash.hex()[:16]
'5769278f0124cc1e'
>>> links, head = link(head, [body_hash('{"v":1}')], recorded_at_us=1795338900000000)
>>> links[0].seq, head.size, links[0].prev_hash.hex()[:16]
(0, 1, '5769278f0124cc1e')
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from audit_service.core.merkle import Frontier

HEADER_VERSION = "audit-service/entry/v1"
BODY_PREFIX = b"audit-service/body/v1\n"
_ORIGIN = re.compile(r"[^\s+\x00-\x1f\x7f]+/t/[0-9a-f]{32}/[1-9][0-9]*")


@lru_cache(maxsize=4096)
def format_origin(service_name: str, log_key: str, epoch: int) -> str:
    """`<service name>/t/<128-bit log key, hex>/<epoch>`. Raises ValueError for parts that could break a header line."""
    origin = f"{service_name}/t/{log_key}/{epoch}"
    if not _ORIGIN.fullmatch(origin):
        raise ValueError("an origin holds no space, plus sign or control character")
    return origin


def genesis_hash(origin: str) -> bytes:
    """What entry 0 of a log names as its predecessor."""
    return sha256(f"audit-service/genesis/v1\n{origin}\n".encode()).digest()


def body_hash(body: str) -> bytes:
    """The hash of a body's exact canonical text."""
    return sha256(BODY_PREFIX + body.encode()).digest()


def header_bytes(origin: str, seq: int, recorded_at_us: int, kind: str, prev_hash: bytes, body_hash: bytes) -> bytes:
    """The header: seven lines, each ended by LF."""
    return (
        f"{HEADER_VERSION}\n{origin}\n{seq}\n{recorded_at_us}\n{kind}\n{prev_hash.hex()}\n{body_hash.hex()}\n"
    ).encode()


def entry_hash(header: bytes) -> bytes:
    """Chain link and RFC 6962 leaf hash of a header."""
    return sha256(b"\x00" + header).digest()


@dataclass(frozen=True, slots=True)
class Link:
    """What the chain adds to a prepared entry."""

    seq: int
    recorded_at_us: int
    prev_hash: bytes
    body_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a log between appends. `frontier` is 32 bytes for each set bit of `size`, largest subtree first."""

    origin: str
    size: int
    last_hash: bytes
    last_recorded_at_us: int
    frontier: bytes

    @classmethod
    def genesis(cls, origin: str) -> "Head":
        """The head of an empty log."""
        return cls(origin, 0, genesis_hash(origin), 0, b"")


def link(
    head: Head, body_hashes: Sequence[bytes], *, recorded_at_us: int, kind: str = "event"
) -> tuple[list[Link], Head]:
    """Chain bodies after `head`: their links and the new head. The time is never before the head's last."""
    at = max(head.last_recorded_at_us, recorded_at_us)
    frontier = Frontier.from_bytes(head.size, head.frontier)
    last, seq, links = head.last_hash, head.size, []
    for digest in body_hashes:
        hashed = entry_hash(header_bytes(head.origin, seq, at, kind, last, digest))
        links.append(Link(seq, at, last, digest, hashed))
        frontier.append(hashed)
        last, seq = hashed, seq + 1
    if not links:
        return [], head
    return links, Head(head.origin, seq, last, at, frontier.to_bytes())
