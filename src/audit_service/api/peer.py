"""Whose address a request comes from, when proxies stand between: the right-most one that is no trusted proxy.

The connection's own address counts unless it is in AUDIT_TRUSTED_PROXIES. If it is, that proxy has appended whom it heard from to
AUDIT_FORWARDED_HEADER (X-Forwarded-For, or Forwarded of RFC 7239; one of them, never both: a proxy hands on what a client wrote into the
one it does not use). The header is read from the right, past every trusted proxy; everything left of the first other address is only a
claim, and spoils nothing: each element is read by itself, a quote that was left open before it or in another line included. What is no
address there (`unknown`, an obfuscated name, junk) leaves the address unknown, never a guess; only a proxy of ours can have written it.

The address limits who may ask, and goes into the access log. It is never part of an entry: `context.ip` is what the panel says of its
own user.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from starlette.requests import HTTPConnection

from audit_service.api.logs import Scope

Address: TypeAlias = IPv4Address | IPv6Address

UNIX = "unix"
# A chain of more trusted proxies than this is no chain that anybody runs.
HOPS_LIMIT = 32
_STATE = "peer"
_ADDRESS = re.compile(
    r"\[(?P<six>[0-9A-Fa-f:.]+)\](?::\d{1,5})?|(?P<four>\d+\.\d+\.\d+\.\d+)(?::\d{1,5})?|(?P<bare>[0-9A-Fa-f:.]+)"
)
# One parameter of a Forwarded element: a token or a quoted string (RFC 7239, section 4).
_PARAMETER = re.compile(r'\s*(?P<name>[A-Za-z]+)=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^\s",;=]+))\s*')


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies that are believed, and the header in which they say whom they heard from."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False
    header: bytes = b"x-forwarded-for"

    @classmethod
    def of(cls, trusted: Sequence[str], header: str) -> "Proxies":
        """From the settings. Raises ValueError for what is no network."""
        networks = tuple(ip_network(network) for network in trusted if network != UNIX)
        return cls(networks, UNIX in trusted, header.encode())

    def trusts(self, address: Address) -> bool:
        """Whether the address is a trusted proxy's."""
        return any(address in network for network in self.networks if network.version == address.version)


def peer_address(request: HTTPConnection) -> Address | None:
    """The address that a request comes from; None where it cannot be told (a socket without one, a header that names none)."""
    return address_of(request.scope)


def address_of(scope: Scope) -> Address | None:
    """The same, of an ASGI scope. Worked out once for a request, and only if anybody asks."""
    state = scope.setdefault("state", {})
    if _STATE not in state:
        state[_STATE] = find_peer(scope, scope["app"].state.service.proxies)
    found: Address | None = state[_STATE]
    return found


def find_peer(scope: Scope, proxies: Proxies) -> Address | None:
    """The right-most address that is no trusted proxy's; where all are trusted, the left-most."""
    client = scope.get("client")
    own = None if not client or not client[0] else parse_address(client[0])
    if not (proxies.unix if own is None else proxies.trusts(own)):
        return own
    peer = own
    for hop, text in enumerate(_hops(scope, proxies.header)):
        peer = parse_address(text) if text is not None and hop < HOPS_LIMIT else None
        if peer is None or not proxies.trusts(peer):
            return peer
    return peer


def parse_address(text: str) -> Address | None:
    """An address with or without port and brackets; an IPv4 one written as IPv6 as IPv4. None for anything else."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None:
        return None
    try:
        address = ip_address(match["six"] or match["four"] or match["bare"])
    except ValueError:
        return None
    if match["six"] and address.version == 4:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _hops(scope: Scope, header: bytes) -> Iterator[str | None]:
    """What the header names, the right-most first; None for what names nothing. A header given several times is one list."""
    value = b",".join(value for name, value in scope["headers"] if name == header).decode("latin-1")
    if not value:
        return
    if header != b"forwarded":
        yield from reversed(value.split(","))
        return
    pieces: list[str] = []
    quotes = 0
    for piece in reversed(value.split(",")):  # a comma stands between elements, or in the quoted string of one
        pieces.append(piece)
        quotes += piece.count('"') - piece.count('\\"')
        if quotes % 2 == 0:
            yield _heard_from(",".join(reversed(pieces)))
            pieces, quotes = [], 0
    if pieces:
        yield None


def _heard_from(element: str) -> str | None:
    """The `for` of an element of a Forwarded header; None where it has none, or is not well-formed."""
    found: str | None = None
    position = 0
    while position < len(element):
        match = _PARAMETER.match(element, position)
        if match is None:
            return None
        if match["name"].lower() == "for":
            if found is not None:
                return None  # one element cannot come from two
            found = re.sub(r"\\(.)", r"\1", match["quoted"]) if match["quoted"] is not None else match["token"]
        position = match.end()
        if element[position : position + 1] not in {";", ""}:
            return None
        position += 1
    return found
