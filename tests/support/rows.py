"""Rows as tests compare them."""

from audit_service.core.canonical import JSONValue


def normal(value: JSONValue) -> object:
    """A value such that Python's == is the equality of the diff: types apart, 1 = 1.0, [] = {}."""
    if value in ([], {}):
        return "empty"
    if isinstance(value, dict):
        return {name: normal(member) for name, member in value.items()}
    if isinstance(value, list):
        return [normal(item) for item in value]
    return (isinstance(value, bool), value)
