"""What a reader sees of an entry: its disclosures without the fields that the reader's sight hides (`core.sight`).

Everything an entry is shown in (its members, its sentence, a line of an export, who last set a field), and every filter that is checked
against what is seen, works on what `mask_values` leaves. So a hidden field is not there at all, and nothing has to remember to skip it.

- `ips` hidden: the group `ip`.
- `emails` hidden: the group `actor_email`; `email` of who it was done for; and of both what holds an address in place of an id or a name.
- `staff_as` set: of an actor whose type is one of `staff_types`, and of a member of staff for whom somebody acted, only that name is left.
  Their address, e-mail and the rest of the context go too: a user agent or a session tells who it is.

Hidden is not erased: the log still has it, and its proof stays as it was.

>>> sight = Sight(staff_as="Support")
>>> body = {"action": "server.suspended", "actor_type": "admin"}
>>> mask_values(body, {"actor": {"id": "7", "name": "Ana"}, "ip": "203.0.113.9", "text": {"reason": "unpaid"}}, sight)
({'text': {'reason': 'unpaid'}, 'actor': {'name': 'Support'}}, ['actor', 'ip'])
"""

import re
from typing import cast

from audit_service.core.bursts import Act
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject
from audit_service.core.sight import Sight

# Of whoever is called `staff_as` nothing else is left of these.
_OF_STAFF = ("actor", "actor_email", "on_behalf_of", "ip", "context")
_ADDRESS = re.compile(r"\S@\S")


def mask_values(body: JSONObject, values: JSONObject, sight: Sight) -> tuple[JSONObject, list[str]]:
    """(what is left of an entry's disclosed values, the names of the groups of which something is hidden, sorted). `values`: group →
    value, of the shapes that `view` checks; it is never changed."""
    if not sight.hides_fields:
        return values, []
    visible = dict(values)
    if not sight.ips:
        visible.pop("ip", None)
    if not sight.emails:
        _hide_emails(visible)
    if sight.staff_as is not None:
        _hide_staff(body, visible, sight, sight.staff_as)
    hidden = sorted(group for group, value in values.items() if visible.get(group) != value)
    return visible, hidden


def mask_act(act: Act, sight: Sight) -> Act:
    """What bursts are told by: the same of whoever is hidden, so that no fold tells members of staff, or e-mails, apart."""
    if is_staff(act.actor_type, sight):
        return act._replace(actor_id=None, actor_name=sight.staff_as, actor_email=None)
    if not sight.emails:
        return act._replace(actor_id=_shown(act.actor_id), actor_name=_shown(act.actor_name), actor_email=None)
    return act


def _shown(text: str | None) -> str | None:
    return None if text is None or holds_address(text) else text


def is_staff(kind: JSONValue, sight: Sight) -> bool:
    """Whether an actor of this type is shown as `staff_as`."""
    return sight.staff_as is not None and kind in sight.staff_types


def holds_address(text: str) -> bool:
    """Whether an id or a name gives an e-mail address away: anything with an `@` between two characters."""
    return "@" in text and _ADDRESS.search(text) is not None


def _hide_emails(visible: JSONObject) -> None:
    visible.pop("actor_email", None)
    for group in ("actor", "on_behalf_of"):
        if group not in visible:
            continue
        of_person = cast("JSONObject", visible[group])
        left = {name: value for name, value in of_person.items() if name != "email" and not _is_address(value)}
        if left:
            visible[group] = left
        else:
            del visible[group]


def _is_address(value: JSONValue) -> bool:
    return isinstance(value, str) and holds_address(value)


def _hide_staff(body: JSONObject, visible: JSONObject, sight: Sight, staff_as: str) -> None:
    if is_staff(body.get("actor_type"), sight):
        for group in _OF_STAFF:
            visible.pop(group, None)
        visible["actor"] = {"name": staff_as}
        return
    behalf = cast("JSONObject", visible.get("on_behalf_of", {}))
    if is_staff(behalf.get("type"), sight):
        visible["on_behalf_of"] = {"type": behalf["type"], "name": staff_as}
