"""Filters on text that mixes what a reader sees with what is hidden from them (decision 0018).

`actor_keys` and `search` of an entry hold ids, names and texts beside e-mails and whatever else a sight may hide, folded; and PostgreSQL
cannot fold. So a condition lets through whatever may match, and says of which entries it is `unsure`; those are read and compared here with
what `core.mask` leaves of them. Nothing vanishes because of what is hidden, and nothing is found by it.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from sqlalchemy import ColumnElement, false, func, or_
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core.entry import JSONObject, search_text
from audit_service.core.folding import fold
from audit_service.core.mask import mask_values
from audit_service.core.sight import Sight
from audit_service.core.terms import search_words
from audit_service.core.view import DAMAGES, actor_view, disclosed
from audit_service.errors import Fault, InvalidQueryError
from audit_service.store.limits import is_veiled, unsure
from audit_service.store.rows import fetch_in_order
from audit_service.store.selection import Filter, Selection

# Entries that one search reads here. Somebody who asks for a word that hardly anything but hidden e-mails holds must not have all of the
# log read and compared.
CHECKED_LIMIT = 20_000
# Of the limit, how much chance may take off, twice.
_CHANCE_PART = 8
_GROUPS = {
    "actor": ("actor", "actor_email"),
    "q": ("actor", "actor_email", "on_behalf_of", "target", "text", "changes"),
}


def allowed_entries() -> int:
    """How many entries one search may read: never the same, or whoever has found the edge would see one hidden entry more or less. Two
    draws, not one: the ends of one are edges themselves (decision 0018)."""
    part = CHECKED_LIMIT // _CHANCE_PART + 1
    return CHECKED_LIMIT - secrets.randbelow(part) - secrets.randbelow(part)


@dataclass(slots=True)
class Veil:
    """What of a selection is compared here. `left`: how many more entries may be read."""

    filters: Sequence[Filter]
    sight: Sight
    left: int = field(default_factory=allowed_entries)

    @property
    def unsure(self) -> ColumnElement[bool]:
        """Whether an entry has to be compared here."""
        return func.coalesce(or_(*(unsure(item.field, self.sight) for item in self.filters)), false())

    @property
    def _names(self) -> list[str]:
        """The columns that are needed for it."""
        groups = {group: None for item in self.filters for group in _GROUPS[item.field]}
        return ["seq", "body", *(f"d_{group}" for group in groups)]

    async def passing(self, connection: AsyncConnection, log_id: int, seqs: Collection[int]) -> set[int]:
        """Those of some unsure entries that the filters really let through. Raises InvalidQueryError when they were too many."""
        self.left -= len(seqs)
        if self.left < 0:
            names = {item.field for item in self.filters}
            detail = "is found in too many events that must be compared one by one; ask for a shorter time too"
            raise InvalidQueryError(
                "too many events would have to be compared", [Fault(detail, parameter=name) for name in sorted(names)]
            )
        found: set[int] = set()
        waiting = sorted(seqs)
        while waiting:
            brought = await fetch_in_order(connection, log_id, waiting, self._names)
            found |= {row.seq for row in brought.rows if self.lets_through(row._mapping)}
            waiting = waiting[waiting.index(brought.rows[-1].seq) + 1 :] if brought.more else []
        return found

    def lets_through(self, row: Any) -> bool:
        """Whether an entry, by its columns, is what the filters ask for, going by what is seen of it. Of a damaged one nothing is."""
        try:
            body = orjson.loads(row["body"])
            groups = {group for item in self.filters for group in _GROUPS[item.field]}
            values = {group: disclosed(row[f"d_{group}"]) for group in groups if row[f"d_{group}"] is not None}
            # Nobody is found by the name that stands for all members of staff: not by an empty one either.
            seen, _ = mask_values(body, values, replace(self.sight, staff_as=self.sight.staff_as and ""))
            return all(_has(item, body, seen) is not item.negated for item in self.filters)
        except DAMAGES:
            return all(item.negated for item in self.filters)


def veil_of(selection: Selection) -> Veil | None:
    """What has to be compared here; None when PostgreSQL tells everything."""
    filters = [item for item in selection.filters if is_veiled(item.field, selection.sight)]
    return Veil(filters, selection.sight) if filters else None


def _has(item: Filter, body: JSONObject, seen: JSONObject) -> bool:
    if item.field == "q":
        text = search_text(body, seen) or ""
        return any(all(word in text for word in search_words(str(value))) for value in item.values)
    actor = actor_view(body, seen) or {}
    keys = [fold(str(actor[name])) for name in ("id", "name", "email") if actor.get(name)]
    return any(_is_key(str(value), key) for value in item.values for key in keys)


def _is_key(value: str, key: str) -> bool:
    """Whether a value of the filter `actor`, whole or with `*` the beginning, is a folded key."""
    return key.startswith(fold(value[:-1])) if value.endswith("*") else key == fold(value)
