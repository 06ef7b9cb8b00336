"""The limits of an API key or a viewer token: what it sees, what it may post, and from where it may be used.

They are stored as JSON, shown as they are stored, and never change: a key with other limits is another key. An absent member limits
nothing, so `{}` is a key without limits.

>>> limits = parse_limits({"server_ids": ["s1"], "global_events": False, "networks": ["192.0.2.0/24"]})
>>> limits.sight.server_ids, limits.sight.global_events, limits.networks
(frozenset({'s1'}), False, (IPv4Network('192.0.2.0/24'),))
>>> parse_limits(limits.as_json()) == limits
True
"""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any, TypeAlias

from audit_service.core.posting import Posting
from audit_service.core.sight import EVERYTHING, NOTHING, STAFF_TYPES, Sight
from audit_service.errors import Fault

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
_BEYOND = "is more than the credential has itself"


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """`sight`: what is seen; its rows are also those that may be posted. `source_id`: the one `source.id` that may be posted.
    `networks`: the addresses it may be used from. None for all."""

    sight: Sight
    source_id: str | None = None
    networks: tuple[Network, ...] | None = None

    @property
    def posting(self) -> Posting | None:
        """What may be posted; None for everything."""
        sight = self.sight
        posting = Posting(sight.server_ids, sight.global_events, sight.categories, self.source_id)
        return posting if posting.is_limited else None

    def allows_peer(self, peer: Address | None) -> bool:
        """Whether it may be used from an address. From one that cannot be told, only where it may be used from everywhere."""
        if self.networks is None:
            return True
        return peer is not None and any(peer in network for network in self.networks if network.version == peer.version)

    def as_json(self) -> dict[str, Any]:
        """As stored and shown: every member, null for what is not limited."""
        sight = self.sight
        return {
            "server_ids": _listed(sight.server_ids),
            "global_events": sight.global_events,
            "categories": _listed(sight.categories),
            "actor_id": sight.actor_id,
            "actor_type": sight.actor_type,
            "audit_entries": sight.own_entries,
            "ips": sight.ips,
            "emails": sight.emails,
            "staff_as": sight.staff_as,
            "staff_types": None if sight.staff_as is None else sorted(sight.staff_types),
            "source_id": self.source_id,
            "networks": None if self.networks is None else [str(network) for network in self.networks],
        }

    def beyond(self, own: "KeyLimits") -> list[Fault]:
        """Where these limits leave more open than `own`: what a holder of `own` may not hand out. Pointers are into `as_json`."""
        asked, seen = self.sight, own.sight
        names = {
            "/server_ids": not _is_part(asked.server_ids, seen.server_ids),
            "/global_events": asked.global_events and not seen.global_events,
            "/categories": not _is_part(asked.categories, seen.categories),
            "/actor_id": seen.actor_id is not None and asked.actor_id != seen.actor_id,
            "/actor_type": seen.actor_type is not None and asked.actor_type != seen.actor_type,
            "/audit_entries": asked.own_entries and not seen.own_entries,
            "/ips": asked.ips and not seen.ips,
            "/emails": asked.emails and not seen.emails,
            "/staff_as": seen.staff_as is not None and asked.staff_as is None,
            "/staff_types": None not in (seen.staff_as, asked.staff_as) and not asked.staff_types >= seen.staff_types,
            "/source_id": own.source_id is not None and self.source_id != own.source_id,
            "/networks": not _are_subnets(self.networks, own.networks),
        }
        return [Fault(_BEYOND, pointer) for pointer, is_beyond in names.items() if is_beyond]

    def within(self, own: "KeyLimits") -> "KeyLimits":
        """These limits as a holder of `own` hands them on: once more through both, whatever `beyond` has found."""
        return replace(self, sight=self.sight.within(own.sight))


def parse_limits(stored: dict[str, Any]) -> KeyLimits:
    """What `as_json` made. A limit that this version does not know is kept by showing and taking nothing."""
    if not stored.keys() <= KeyLimits(EVERYTHING).as_json().keys():
        return KeyLimits(NOTHING)
    server_ids, categories, types = (stored.get(name) for name in ("server_ids", "categories", "staff_types"))
    networks = stored.get("networks")
    sight = Sight(
        server_ids=None if server_ids is None else frozenset(server_ids),
        global_events=stored.get("global_events", True),
        categories=None if categories is None else frozenset(categories),
        actor_id=stored.get("actor_id"),
        actor_type=stored.get("actor_type"),
        own_entries=stored.get("audit_entries", False),
        ips=stored.get("ips", True),
        emails=stored.get("emails", True),
        staff_as=stored.get("staff_as"),
        staff_types=STAFF_TYPES if types is None else frozenset(types),
    )
    return KeyLimits(
        sight, stored.get("source_id"), None if networks is None else tuple(ip_network(network) for network in networks)
    )


def _listed(values: frozenset[str] | None) -> list[str] | None:
    return None if values is None else sorted(values)


def _is_part(asked: frozenset[str] | None, own: frozenset[str] | None) -> bool:
    return own is None or (asked is not None and asked <= own)


def _are_subnets(asked: tuple[Network, ...] | None, own: tuple[Network, ...] | None) -> bool:
    if own is None:
        return True
    return asked is not None and all(any(_is_subnet(one, wider) for wider in own) for one in asked)


def _is_subnet(one: Network, wider: Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(wider, IPv4Network) and one.subnet_of(wider)
    return isinstance(wider, IPv6Network) and one.subnet_of(wider)
