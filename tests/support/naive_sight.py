"""A naive reader of events: what somebody of a sight may see, find and count, said once more in words of its own, and random questions.

Nothing here looks at SQL, views or the search index; `tests.support.oracle` says what the filters mean, this module what a sight leaves.
"""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import strategies as st

from audit_service.core import terms
from audit_service.core.sight import Sight
from audit_service.store import find, slices
from tests.support.oracle import ASKED, NAIVE, Event, make_events, matches


def small_search(patch: pytest.MonkeyPatch, segment_events: int) -> None:
    """Every way through the search with few events: short segments, walks, lists and slices."""
    patch.setattr(terms, "SEGMENT_EVENTS", segment_events)
    for name in (
        "WALK_ENTRIES",
        "LONG_WALK_ENTRIES",
        "_NAMED_LIMIT",
        "_LISTED_LIMIT",
        "_CHECKED_ENTRIES",
        "_LOOKED_UP_LIMIT",
    ):
        patch.setattr(find, name, 3)
    patch.setattr(find, "_BATCHES", (1, 2, 4))
    patch.setattr(slices, "SLICE_ENTRIES", 7)


def make_events_of_persons(seed: int, count: int, prefix: str) -> list[Event]:
    """Those of the oracle, and beside them what only sights ask about: persons behind others, ids and names that are e-mails, and e-mails
    that are also said where everybody sees them."""
    events = make_events(seed, count, prefix)
    for number, event in enumerate(events):
        if number % 6 == 0:
            event["on_behalf_of"] = {
                "type": "client",
                "id": "12",
                "name": "Ana of Example",
                "email": "boss@example.com",
            }
        if number % 7 == 0:
            event["actor"] = {"type": "user", "id": "ana@example.com", "name": "ana@example.com ", "role": "x@y"}
        if number % 11 == 0:
            event["description"] = "written to ana@example.com"
    return events


def admitted(event: Event, sight: Sight) -> bool:
    """Whether the event is seen, said once more in words of its own."""
    return not (
        (event["action"].startswith("audit.") and not sight.own_entries)
        or (event["server_id"] is None and not sight.global_events)
        or (
            event["server_id"] is not None
            and sight.server_ids is not None
            and event["server_id"] not in sight.server_ids
        )
        or (sight.categories is not None and event["category"] not in sight.categories)
        or (sight.actor_id is not None and (event["actor"] or {}).get("id") != sight.actor_id)
        or (sight.actor_type is not None and (event["actor"] or {}).get("type") != sight.actor_type)
    )


def left_of(event: Event, sight: Sight) -> Event:
    """What of an event can be asked for."""
    actor, behalf, context = (dict(event.get(name) or {}) for name in ("actor", "on_behalf_of", "context"))
    if not sight.ips:
        context["ip"] = None
    if not sight.emails:
        for person in (actor, behalf):
            person.pop("email", None)
            for name in [name for name in person if name != "type" and re.search(r"\S@\S", str(person[name]))]:
                del person[name]
    if sight.staff_as is not None and actor.get("type") in sight.staff_types:
        actor, behalf, context = {"type": actor["type"]}, {}, dict.fromkeys(context)
    elif sight.staff_as is not None and behalf.get("type") in sight.staff_types:
        behalf = {"type": behalf["type"]}
    return event | {"actor": actor or None, "on_behalf_of": behalf or None, "context": context}


def seen(events: list[Event], sight: Sight, asked: list[tuple[str, str]]) -> list[Event]:
    """The events that a question brings."""
    shown = [left_of(event, sight) for event in events if admitted(event, sight)]
    return [event for event in shown if matches(event, asked)]


def facet_value(event: Event, name: str) -> str | None:
    """The value an event has for a filter menu."""
    actor, target = event["actor"] or {}, event["target"] or {}
    own = {
        "actor": actor.get("id"),
        "role": actor.get("role"),
        "actor_type": actor.get("type"),
        "target_type": target.get("type"),
    }
    value = own[name] if name in own else event[name]
    return None if value is None else str(value)[: terms.VALUE_CHARACTERS]


def at(event: Event) -> datetime:
    """When it occurred."""
    return datetime.fromisoformat(event["occurred_at"]).astimezone(UTC)


# --- random questions ---

EMAILS = ["boss@example.com", "ana of example", "example.com", "boss@", "ana@example.com", "written", "x@y"]
QUESTIONS = {
    **ASKED,
    "q": [*ASKED["q"], *EMAILS],
    "actor": [*ASKED["actor"], "ana@*", "boss@example.com", "a.bel@example.com"],
    "role": [*ASKED["role"], "x@y"],
    "action": [*ASKED["action"], "audit.*", "audit.key.created"],
    "category": [*ASKED["category"], "audit"],
}
filters = st.sampled_from([*sorted(NAIVE), *["q", "actor", "role"] * 4]).flatmap(
    lambda name: st.lists(st.sampled_from(QUESTIONS[name]), min_size=1, max_size=2).flatmap(
        lambda values: st.sampled_from([name, name + ".not"]).map(lambda n: [(n, value) for value in values])
    )
)
questions = st.lists(filters, max_size=2).map(
    lambda groups: [pair for group in {g[0][0]: g for g in groups}.values() for pair in group]
)
NAMES = ["s1", "s10", "s%", "S1", "a/b", "another's", "back\\slash"]
KINDS = ["server", "x", "user", "audit"]
sights = st.builds(
    Sight,
    server_ids=st.one_of(st.none(), st.frozensets(st.sampled_from(NAMES), max_size=4)),
    global_events=st.booleans(),
    categories=st.one_of(st.none(), st.none(), st.frozensets(st.sampled_from(KINDS), max_size=3)),
    actor_id=st.one_of(st.none(), st.none(), st.none(), st.sampled_from(["u1", "12", "nobody"])),
    actor_type=st.one_of(st.none(), st.none(), st.none(), st.sampled_from(["user", "client", "nobody"])),
    own_entries=st.booleans(),
    ips=st.booleans(),
    emails=st.booleans(),
    staff_as=st.one_of(st.none(), st.just("Support")),
    staff_types=st.frozensets(st.sampled_from(["user", "client", "system"]), min_size=1, max_size=2),
)  # fmt: skip
