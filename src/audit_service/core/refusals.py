"""Refused requests, counted: however many come, they make a bounded number of entries.

Refusals of one kind, for one reason, of one credential and from one address are one count. A count is handed out when its window is over;
then the next one begins a new window. When `kinds_limit` counts are open, further kinds are counted together for each log and reason,
without saying from where; beyond twice the limit, nothing is kept.

IPv6 addresses count by their /64, which is what one host has at least; the first address stands for all.
"""

import ipaddress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache

from audit_service.core.own_event import Actor

KINDS_LIMIT = 256
ROUTES_LIMIT = 10


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refused request. `log_id`: the log that is told, None for the service's own; `actor`: the holder of a known credential."""

    log_id: int | None
    action: str
    reason: str
    ip: str | None = None
    actor: Actor | None = None


@dataclass(slots=True)
class Refused:
    """What was counted of one kind. `due`: when its window is over, on the clock that the caller reads."""

    refusal: Refusal
    due: float
    first: datetime
    last: datetime
    count: int = 0
    routes: set[str] = field(default_factory=set)


class Refusals:
    """The open counts."""

    def __init__(self, *, window_seconds: float = 60.0, kinds_limit: int = KINDS_LIMIT) -> None:
        self._window_seconds, self._kinds_limit = window_seconds, kinds_limit
        self._open: dict[Refusal, Refused] = {}

    def add(self, refusal: Refusal, route: str, *, now: float, at: datetime, count: int = 1) -> bool:
        """Count a refused request, or `count` refused events of one. False when nothing could be told of it."""
        kind = replace(refusal, ip=_network(refusal.ip))
        if kind not in self._open and len(self._open) >= self._kinds_limit:
            kind = refusal = replace(refusal, ip=None, actor=None)
            if kind not in self._open and len(self._open) >= 2 * self._kinds_limit:
                return False
        counted = self._open.get(kind)
        if counted is None:
            counted = self._open[kind] = Refused(refusal, now + self._window_seconds, at, at)
        counted.count += count
        counted.last = at
        if len(counted.routes) < ROUTES_LIMIT:
            counted.routes.add(route)
        return True

    def take(self, now: float | None) -> list[Refused]:
        """The counts whose window is over; all of them for None."""
        over = [counted for counted in self._open.values() if now is None or counted.due <= now]
        if over:
            self._open = {} if now is None else {kind: one for kind, one in self._open.items() if one.due > now}
        return over

    @property
    def next_due(self) -> float | None:
        """When the next window is over; None when nothing is counted."""
        return next((counted.due for counted in self._open.values()), None)  # in the order in which they were opened


@lru_cache(maxsize=4096)
def _network(ip: str | None) -> str | None:
    if ip is None:
        return None
    address = ipaddress.ip_address(ip)
    if address.version == 4 or address.ipv4_mapped is not None:
        return ip
    return str(ipaddress.ip_network((int(address), 64), strict=False))
