"""A sight's limits in PostgreSQL, said twice over (decision 0018): as conditions that every statement of a reader carries, and as settings
of the transaction that the views `seen_entry` and `bound_tally` look at. Either alone keeps everything else out.

What is forgotten of an entry says no more whose it was: whoever does not see every row sees no such entry.
"""

from collections.abc import Iterable
from typing import Any, Literal

from sqlalchemy import ColumnElement, any_, cast, false, func, or_
from sqlalchemy.dialects.postgresql import ARRAY, TEXT

from audit_service.core.sight import OWN_PREFIX, Sight
from audit_service.store.literals import array_literal, is_storable, quoted
from audit_service.store.tables import seen_entry

_c = seen_entry.c
_ANY = "*"  # no array literal
# Filters on text in which something may be hidden.
_VEILED = ("actor", "q")
# White space as Python knows it; PostgreSQL's own class depends on the column.
_SPACE = "".join(f"\\u{code:04x}" for code in range(0x3001) if chr(code).isspace())
_ADDRESS = f"[^{_SPACE}]@[^{_SPACE}]"


def row_conditions(sight: Sight, *, server_named: bool = False) -> list[ColumnElement[bool]]:
    """What an entry has to be for this sight. `server_named`: a statement that names one server, which the sight admits, itself."""
    found: list[ColumnElement[bool]] = []
    if not sight.own_entries:
        found.append(func.starts_with(_c.action, OWN_PREFIX).is_not(True))
    if not sight.sees_every_row:
        found.append(_c.action.is_not(None))
    if not server_named:
        found += _server_conditions(sight)
    if sight.categories is not None:
        found.append(among_texts(_c.category, sight.categories))
    if sight.actor_id is not None:
        found.append(_c.actor_id == sight.actor_id)
    if sight.actor_type is not None:
        found.append(_c.actor_type == sight.actor_type)
    return found


def _server_conditions(sight: Sight) -> list[ColumnElement[bool]]:
    if sight.server_ids is None:
        return [] if sight.global_events else [_c.server_id.is_not(None)]
    of_servers = among_texts(_c.server_id, sight.server_ids)
    return [or_(_c.server_id.is_(None), of_servers) if sight.global_events else of_servers]


def among_texts(column: ColumnElement[Any], values: Iterable[str]) -> ColumnElement[bool]:
    """Whether a column has one of these values. As one array: with a statement of its own for each number of values, none would be
    prepared twice."""
    found: ColumnElement[bool] = column == any_(cast(sorted(filter(is_storable, values)), ARRAY(TEXT)))
    return found


def is_veiled(field: str, sight: Sight) -> bool:
    """Whether a filter's text holds something that is hidden."""
    return field in _VEILED and (not sight.emails or (field == "q" and sight.staff_as is not None))


def unsure(field: str, sight: Sight) -> ColumnElement[bool]:
    """Whether an entry has something hidden in the text of a veiled filter. May be null."""
    parts: list[ColumnElement[bool]] = []
    if not sight.emails:
        parts.append(_c.d_actor_email.is_not(None))
        parts += [func.strpos(column, "@") > 0 for column in (_c.actor_id, _c.actor_name, _c.actor_role)]
    if field == "actor":
        return or_(*parts)
    if sight.staff_as is not None:
        parts.append(among_texts(_c.actor_type, sight.staff_types))
    return or_(_c.d_on_behalf_of.is_not(None), *parts)


def is_staff(sight: Sight) -> ColumnElement[bool]:
    """Whether an entry's actor is one whose name is hidden. Never null."""
    return func.coalesce(among_texts(_c.actor_type, sight.staff_types), false())


def holds_address(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """`core.mask.holds_address` of a column."""
    found: ColumnElement[bool] = column.regexp_match(_ADDRESS)
    return found


def binding(sight: Sight, scope: Literal["LOCAL", "SESSION"] = "LOCAL") -> str:
    """The statements that bind a sight for the transaction they run in, and no longer, or for a session of its own. Numbers of ours and
    quoted constants only."""
    if sight.sees_every_row:
        return f"SET {scope} audit.sight = '{'every' if sight.own_entries else 'panels'}'"
    said = {
        "audit.sight": "listed",
        "audit.own_entries": _switch(sight.own_entries),
        "audit.global_events": _switch(sight.global_events),
        "audit.servers": _listed(sight.server_ids),
        "audit.categories": _listed(sight.categories),
        "audit.actors": _listed(_one(sight.actor_id)),
        "audit.actor_types": _listed(_one(sight.actor_type)),
    }
    # SET LOCAL as a statement, not set_config(): it is what a distributed PostgreSQL forwards to its shards.
    return "; ".join(f"SET {scope} {name} = {quoted(value)}" for name, value in said.items())


def _switch(on: bool) -> str:
    return "on" if on else "off"


def _one(value: str | None) -> tuple[str] | None:
    return None if value is None else (value,)


def _listed(values: Iterable[str] | None) -> str:
    """As the view reads it. What no column can hold is nobody's."""
    return _ANY if values is None else array_literal(sorted(filter(is_storable, values)))
