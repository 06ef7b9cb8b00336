"""What of an entry an erasure takes: whom it is about, which disclosures say something of them, and what is left.

An erasure is about a *person* who acts (an actor's id; also where somebody acted on their behalf), about a *target* (what was done to them,
and what was written about them), or about single *events*. Ids are compared as they are stored, never folded.

| about | where | default groups |
|---|---|---|
| a person | `actor.id` | actor, actor_email, ip, context |
| | `on_behalf_of.id` | on_behalf_of |
| a target | `target.id` with `target_type` | target, text, metadata, changes |
| | one of `related` | target |
| either | the target of `audit.read`, which names no type | target |
| events | the event's id | all |

Groups asked for take the place of the defaults, but where the person only acted through somebody, or the target is only related, there is
nothing else of theirs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, cast

import orjson

from audit_service.core.canonical import JSONValue
from audit_service.core.control import ErasedItem
from audit_service.core.entry import GROUPS, JSONObject, Projection, project
from audit_service.core.view import disclosed


@dataclass(frozen=True, slots=True)
class Person:
    """Whoever acted under this id; with `type`, only actors of that type."""

    id: str
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What was acted upon."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class Events:
    """Single events, by their ids."""

    ids: frozenset[str]


Subject: TypeAlias = Person | Target | Events
NOTED_TYPE = "target"
"""The type of the target of a note of reading a target's history."""
_OF_ACTOR = frozenset(("actor", "actor_email", "ip", "context"))
_OF_TARGET = frozenset(("target", "text", "metadata", "changes"))


class Erasure(NamedTuple):
    """What an erasure takes of one entry, and the columns that follow from the rest."""

    seq: int
    items: list[ErasedItem]
    left: Projection


def plan_erasure(
    seq: int, body: str, disclosures: Mapping[str, bytes], subject: Subject, groups: frozenset[str] | None = None
) -> Erasure | None:
    """What to erase of an entry, or None when nothing of the subject's is there (any more). `disclosures`: group → `salt || value`;
    `groups`: those asked for. Raises one of `view.DAMAGES` for a row that no append wrote, also for a disclosure that its body never
    committed to, of which no record could be made."""
    said = cast("JSONObject", orjson.loads(body))
    values = {group: disclosed(salted) for group, salted in disclosures.items()}
    going = _concerned(subject, said, values, groups) & values.keys()
    if not going:
        return None
    commitments = cast("dict[str, str]", said["sd"])
    items = [ErasedItem(seq, group, bytes.fromhex(commitments[group])) for group in sorted(going)]
    left = project(said, {group: value for group, value in values.items() if group not in going})
    return Erasure(seq, items, left)


def _concerned(subject: Subject, body: JSONObject, values: JSONObject, groups: frozenset[str] | None) -> frozenset[str]:
    """The groups that say something of the subject."""
    found: frozenset[str] = frozenset()
    if isinstance(subject, Events):
        return (groups or frozenset(GROUPS)) if body.get("id") in subject.ids else found
    target = cast("JSONObject", values.get("target", {}))
    # What the service noted of a read is by the id alone: its path has a type, the note has not.
    if (body.get("action"), body.get("target_type"), target.get("id")) == ("audit.read", NOTED_TYPE, subject.id):
        found |= _only("target", groups)
    if isinstance(subject, Person):
        if _is_person(values.get("actor"), body.get("actor_type"), subject):
            found |= groups or _OF_ACTOR
        behalf = values.get("on_behalf_of")
        if isinstance(behalf, dict) and _is_person(behalf, behalf.get("type"), subject):
            found |= _only("on_behalf_of", groups)
        return found
    if body.get("target_type") == subject.type and target.get("id") == subject.id:
        found |= groups or _OF_TARGET
    related = cast("list[JSONObject]", target.get("related", []))
    if any(thing.get("type") == subject.type and thing.get("id") == subject.id for thing in related):
        found |= _only("target", groups)
    return found


def _is_person(person: JSONValue, kind: JSONValue, wanted: Person) -> bool:
    return isinstance(person, dict) and person.get("id") == wanted.id and wanted.type in (None, kind)


def _only(group: str, groups: frozenset[str] | None) -> frozenset[str]:
    return frozenset((group,)) & (groups or {group})
