"""Sight: what of a log the holder of a credential may see. It comes from the credential alone, never from the request.

Rows: entries of some servers, categories or of one actor; with or without global events (those without a server); with or without the
service's entries about itself, whose actions begin with `audit.`. All limits hold together.

Fields: addresses, e-mails and the names of staff may be hidden. A hidden field is left out wherever an entry is shown, and cannot be
filtered, searched, counted or sorted by either, so that nobody can ask for what they are not shown.
"""

from dataclasses import dataclass, fields, replace

OWN_PREFIX = "audit."
STAFF_TYPES = frozenset(("admin", "administrator", "staff", "support", "employee"))


@dataclass(frozen=True, slots=True, repr=False)
class Sight:
    """What may be seen. The default is all of what panels sent, and nothing of the service's own.

    `server_ids`, `categories`: None for all. `actor_id`: only what this actor did; None for everybody's. `actor_type`: only what actors of
    this type did; None for any, for panels may count clients and administrators apart. `staff_as`: what stands in the place of the names
    of actors whose type is one of `staff_types`; None where they are shown.
    """

    server_ids: frozenset[str] | None = None
    global_events: bool = True
    categories: frozenset[str] | None = None
    actor_id: str | None = None
    own_entries: bool = False
    ips: bool = True
    emails: bool = True
    staff_as: str | None = None
    staff_types: frozenset[str] = STAFF_TYPES
    actor_type: str | None = None

    def __repr__(self) -> str:
        """The same text for the same sight in every process, for a cursor is bound to it: a set is spelled in order."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        spelled = (f"{name}={sorted(v) if isinstance(v, frozenset) else v!r}" for name, v in values)
        return f"Sight({', '.join(spelled)})"

    @property
    def is_whole(self) -> bool:
        """Whether every entry that a panel sent is seen with every field: what a proof over all of the log takes for granted."""
        return self.sees_every_row and not self.hides_fields

    @property
    def sees_every_row(self) -> bool:
        """Whether every entry that a panel sent is seen."""
        limits = (self.server_ids, self.categories, self.actor_id, self.actor_type)
        return self.global_events and all(limit is None for limit in limits)

    @property
    def hides_fields(self) -> bool:
        """Whether any field of what is seen is hidden."""
        return not (self.ips and self.emails and self.staff_as is None)

    def with_notes(self, scopes: frozenset[str]) -> "Sight":
        """What a key or a JWT with these scopes sees. An admin of everything sees what is noted of others, too; not so an admin of a part:
        notes speak of all."""
        return replace(self, own_entries=self.own_entries or ("admin" in scopes and self.is_whole))

    def admits(
        self,
        *,
        action: str,
        server_id: str | None,
        category: str | None = None,
        actor_id: str | None = None,
        actor_type: str | None = None,
    ) -> bool:
        """Whether an entry is seen. What the store asks PostgreSQL for is the same, said twice over in SQL."""
        if action.startswith(OWN_PREFIX) and not self.own_entries:
            return False
        if not self.admits_server(server_id):
            return False
        if self.categories is not None and category not in self.categories:
            return False
        return self.actor_id in {None, actor_id} and self.actor_type in {None, actor_type}

    def admits_server(self, server_id: str | None) -> bool:
        """Whether anything of a server is seen; of None, global events."""
        if server_id is None:
            return self.global_events
        return self.server_ids is None or server_id in self.server_ids

    def within(self, other: "Sight") -> "Sight":
        """What may be seen through both: nobody hands on more than they have. `staff_as` is the other's where it has one, and both decide
        who is staff where both hide them."""
        if _differ(self.actor_id, other.actor_id) or _differ(self.actor_type, other.actor_type):
            other = replace(other, server_ids=frozenset(), global_events=False)  # nothing is done by both
        hiding = [one.staff_types for one in (self, other) if one.staff_as is not None]
        return replace(
            self,
            server_ids=_both(self.server_ids, other.server_ids),
            global_events=self.global_events and other.global_events,
            categories=_both(self.categories, other.categories),
            actor_id=self.actor_id if other.actor_id is None else other.actor_id,
            actor_type=self.actor_type if other.actor_type is None else other.actor_type,
            own_entries=self.own_entries and other.own_entries,
            ips=self.ips and other.ips,
            emails=self.emails and other.emails,
            staff_as=self.staff_as if other.staff_as is None else other.staff_as,
            staff_types=frozenset().union(*hiding) if hiding else self.staff_types,
        )


EVERYTHING = Sight(own_entries=True)
# What a statement sees whose sight was forgotten.
NOTHING = Sight(server_ids=frozenset(), global_events=False)


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _differ(one: str | None, other: str | None) -> bool:
    return None not in (one, other) and one != other
