"""A strict JSON Patch (RFC 6902), written from the RFC and sharing nothing with the service: what a panel's library would do."""

import copy
import re
from typing import Any

INDEX = re.compile(r"0|[1-9][0-9]*")


class PatchError(Exception):
    """The patch does not apply; nothing of it is (section 5). `op` and `path` of the operation that failed."""

    def __init__(self, op: str, path: str) -> None:
        super().__init__(f"{op} {path}")
        self.op = op
        self.path = path


def apply_patch(document: Any, patch: list[dict[str, Any]]) -> Any:
    """The patched document; the given one stays as it is."""
    document = copy.deepcopy(document)
    for operation in patch:
        op, path = operation["op"], operation["path"]
        allowed = {"op", "path"} | ({"value"} if op != "remove" else set())
        assert set(operation) == allowed, operation
        try:
            document = _apply(document, op, tokens(path), operation.get("value"))
        except (LookupError, ValueError):
            raise PatchError(op, path) from None
    return document


def tokens(pointer: str) -> list[str]:
    """The reference tokens of a JSON Pointer (RFC 6901 sections 3 and 4)."""
    if pointer == "":
        return []
    if not pointer.startswith("/") or re.search(r"~(?![01])", pointer):
        raise ValueError(pointer)
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/")]


def _apply(document: Any, op: str, path: list[str], value: Any) -> Any:
    if not path:
        if op == "test":
            _test(document, value)
            return document
        if op == "remove":
            raise ValueError("there is no document left")
        return copy.deepcopy(value)
    parent = document
    for token in path[:-1]:
        parent = _get(parent, token)
    last = path[-1]
    if op == "test":
        _test(_get(parent, last), value)
    elif op == "add":
        _add(parent, last, copy.deepcopy(value))
    else:
        _get(parent, last)  # the target location must exist (4.2, 4.3)
        place = int(last) if isinstance(parent, list) else last
        if op == "remove":
            del parent[place]
        elif op == "replace":
            parent[place] = copy.deepcopy(value)
        else:
            raise ValueError(op)
    return document


def _get(parent: Any, token: str) -> Any:
    if isinstance(parent, dict):
        return parent[token]
    if isinstance(parent, list) and INDEX.fullmatch(token):
        return parent[int(token)]
    raise ValueError(token)


def _add(parent: Any, token: str, value: Any) -> None:
    if isinstance(parent, dict):
        parent[token] = value
    elif isinstance(parent, list) and token == "-":
        parent.append(value)
    elif isinstance(parent, list) and INDEX.fullmatch(token) and int(token) <= len(parent):
        parent.insert(int(token), value)
    else:
        raise ValueError(token)


def _test(found: Any, value: Any) -> None:
    if not equal(found, value):
        raise ValueError("not equal")


def equal(one: Any, other: Any) -> bool:
    """Equality by JSON type (section 4.6): numbers by value, and true is no number."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict | list) or isinstance(other, dict | list):
        return False
    return bool(one == other)
