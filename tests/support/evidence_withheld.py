"""Bundles from which the server kept values back and says so: never tampering, and never good."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tests.support.evidence_base import Case, refused, with_line

Change = Callable[[dict[str, Any]], None]


def withholding(line: dict[str, Any], groups: Any, *, shown: bool = False) -> None:
    """Say of a line that these groups are withheld; leave them out unless they stay `shown`."""
    for group in () if shown else groups:
        line["disclosures"].pop(group, None)
    inclusion = line.pop("inclusion", None)
    line["withheld"] = groups
    if inclusion is not None:
        line["inclusion"] = inclusion


def _behind_inclusion(line: dict[str, Any]) -> None:
    del line["disclosures"]["ip"]
    line["withheld"] = ["ip"]


def withheld_cases() -> Iterator[Case]:
    """Of 7 there are two disclosures; the body of 8 was dropped; of 3 and 6 something was erased, and said to be."""
    chosen: dict[str, Any] = {"chosen": lambda _: True}
    ip: Change = partial(withholding, groups=["ip"])
    yield refused("a value withheld", with_line(7, ip))
    yield refused("two values withheld", with_line(7, partial(withholding, groups=["target", "ip"])))
    yield refused("a value withheld, filtered", with_line(7, ip, **chosen))
    yield refused("what was erased is said to be withheld", with_line(3, ip))
    yield refused("a control entry withholds", with_line(3, partial(withholding, groups=["target"]), "controls_ndjson"))
    shown = partial(withholding, groups=["ip"], shown=True)
    yield refused("withheld and shown", with_line(7, shown), "disclosures")
    yield refused("withheld, of no commitment", with_line(7, partial(withholding, groups=["more"])), "disclosures")
    yield refused("withheld without a body", with_line(8, ip), "disclosures")
    yield refused("one withheld, another gone", with_line(7, _one_gone), "forgotten")
    for name, groups in (
        ("nothing", []), ("null", None), ("a number", [5]), ("twice", ["ip", "ip"]), ("an object", {"ip": 1}), ("text", "ip"),
    ):  # fmt: skip
        members = with_line(7, partial(withholding, groups=groups, shown=True))
        yield refused(f"withheld is {name}", members, "headers", "manifest")
    yield refused("withheld behind the proof", with_line(7, _behind_inclusion, **chosen), "headers", "manifest")


def _one_gone(line: dict[str, Any]) -> None:
    withholding(line, ["ip"])
    del line["disclosures"]["target"]
