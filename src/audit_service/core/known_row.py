"""What is known of a row when only changes to it are: claims about places in it, each by an event.

A *claim* says of one path (a tuple of unescaped segments) that it had a value, that it was absent, or that its value is
withheld. Claims nest: one about `/limits/cpu` refines one about `/limits`. What no claim covers is unknown, which is neither
absent nor null.

A `KnownRow` is filled from the newest event to the oldest, in one of two ways:

- `cover` keeps what is there: an older write shows only where no newer one has been. That is the state of the row, with the
  last writer of each place.
- `overwrite` replaces what is there and all below it: what the events met so far say they found *before* themselves.

`pieces` gives the claims as they show: disjoint, each as deep as it has to be. A whole value of which a newer write changed a
part comes in parts, each with its own writer; a container of which every part is gone comes as what is left, an empty one.

>>> row = KnownRow()
>>> row.cover(("limits", "cpu"), Claim("value", 4, {"seq": 2}))
True
>>> row.cover(("limits",), Claim("value", {"cpu": 2, "ram": 8}, {"seq": 1}))
True
>>> for pointer, claim in sorted(row.pieces()):
...     print(pointer, claim.value, claim.by)
/limits/cpu 4 {'seq': 2}
/limits/ram 8 {'seq': 1}
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject

__all__ = ["Claim", "KnownRow"]

_INDEX = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Claim:
    """What one event says of one place. `value` counts for the kind `value` only; `by` is that event, None when nobody is told.

    `redacted`: it has a value that was withheld on the way in; `erased`: what was said of it was erased since; `unknown`: no
    claim, though one about the place above would cover it.
    """

    kind: Literal["value", "absent", "redacted", "erased", "unknown"]
    value: JSONValue = None
    by: JSONObject | None = None

    def member(self, name: str) -> "Claim | None":
        """What the claim says of a member or element: None when nothing (withheld, or a value that has no members)."""
        if self.kind == "absent":
            return self
        if self.kind != "value" or not isinstance(self.value, dict | list):
            return None
        if isinstance(self.value, dict):
            found = name in self.value
            return Claim("value", self.value[name], self.by) if found else Claim("absent", None, self.by)
        found = _INDEX.fullmatch(name) is not None and int(name) < len(self.value)
        return Claim("value", self.value[int(name)], self.by) if found else Claim("absent", None, self.by)


class _Node:
    """A place: the claim about it as a whole, and the newer ones about parts of it."""

    __slots__ = ("children", "claim")

    def __init__(self) -> None:
        self.claim: Claim | None = None
        self.children: dict[str, _Node] = {}


class KnownRow:
    """Claims about the places of one row. `places` counts the nodes ever made: what the caller bounds memory with."""

    __slots__ = ("_root", "places")

    def __init__(self) -> None:
        self._root = _Node()
        self.places = 0

    def cover(self, path: Sequence[str], claim: Claim) -> bool:
        """Put an older claim below the newer ones. False when they leave nothing of it to see."""
        node = self._root
        for segment in path:
            if node.claim is not None:
                return False
            node = self._child(node, segment)
        if node.claim is not None:
            return False
        node.claim = claim
        return True

    def overwrite(self, path: Sequence[str], claim: Claim) -> None:
        """Put a claim in the place of whatever was said of the path and all below it."""
        node = self._root
        for segment in path:
            node = self._child(node, segment)
        node.claim = claim
        node.children = {}

    def pieces(self) -> Iterator[tuple[str, Claim]]:
        """(JSON Pointer, claim), disjoint but for withheld values, which stand for the rest of their place. In no order."""
        return _pieces(self._root, None)

    def pieces_at(self, path: Sequence[str]) -> Iterator[tuple[str, Claim]]:
        """The same for what lies at a path and below it; pointers start there."""
        node: _Node | None = self._root
        claim: Claim | None = None
        for segment in path:
            above = claim if node is None or node.claim is None else node.claim
            claim = None if above is None else above.member(segment)
            node = None if node is None else node.children.get(segment)
        return _pieces(node or _Node(), claim)

    def _child(self, node: _Node, segment: str) -> _Node:
        child = node.children.get(segment)
        if child is None:
            child = node.children[segment] = _Node()
            self.places += 1
        return child


def _pieces(node: _Node, inherited: Claim | None) -> Iterator[tuple[str, Claim]]:
    """With a stack of its own: a path may have a thousand segments."""
    pending: list[tuple[str, _Node, Claim | None]] = [("", node, inherited)]
    while pending:
        pointer, node, inherited = pending.pop()
        claim = inherited if node.claim is None else node.claim
        if claim is not None:
            yield from _rest(pointer, claim, node.children)
        for name, child in node.children.items():
            pending.append((f"{pointer}/{_escape(name)}", child, None if claim is None else claim.member(name)))


def _rest(pointer: str, claim: Claim, children: dict[str, _Node]) -> Iterator[tuple[str, Claim]]:
    """What of a claim the newer ones below it leave to see."""
    if not children or claim.kind in {"redacted", "erased"}:
        if claim.kind != "unknown":
            yield pointer, claim
        return
    if claim.kind != "value" or not isinstance(claim.value, dict | list):
        return  # the place has members now, so it is no longer what was claimed
    value = claim.value
    members = value.items() if isinstance(value, dict) else ((str(index), item) for index, item in enumerate(value))
    left = [(name, member) for name, member in members if name not in children]
    for name, member in left:
        yield f"{pointer}/{_escape(name)}", Claim("value", member, claim.by)
    if not left and all(_is_gone(child) for child in children.values()):
        yield pointer, Claim("value", type(value)(), claim.by)


def _is_gone(node: _Node) -> bool:
    return not node.children and node.claim is not None and node.claim.kind == "absent"


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
