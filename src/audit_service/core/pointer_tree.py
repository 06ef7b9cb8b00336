"""Configured JSON Pointers as a tree, walked beside a value; `*` stands for any segment."""

from typing import TypeAlias

__all__ = ["Node", "Nodes", "is_final", "segments_of", "step"]

Nodes: TypeAlias = "tuple[Node, ...]"


class Node:
    """One segment of the configured pointers, as a tree; `*` stands for any segment."""

    __slots__ = ("children", "final")

    def __init__(self) -> None:
        self.children: dict[str, Node] = {}
        self.final = False

    def add(self, pointer: str) -> None:
        """`ValueError` for what is no JSON Pointer, or points at the whole row."""
        if not pointer.startswith("/") or _has_bad_escape(pointer):
            raise ValueError(f"not a JSON Pointer to a member: {pointer!r}")
        node = self
        for segment in segments_of(pointer):
            node = node.children.setdefault(segment, Node())
        node.final = True


def _has_bad_escape(pointer: str) -> bool:
    return "~" in pointer.replace("~0", "").replace("~1", "")


def step(nodes: Nodes, segment: str) -> Nodes:
    if not nodes:
        return nodes
    return tuple(child for node in nodes for name in (segment, "*") if (child := node.children.get(name)) is not None)


def is_final(nodes: Nodes) -> bool:
    return any(node.final for node in nodes)


def segments_of(pointer: str) -> list[str]:
    if not pointer:
        return []
    parts = pointer.split("/")[1:]
    return [part.replace("~1", "/").replace("~0", "~") for part in parts] if "~" in pointer else parts
