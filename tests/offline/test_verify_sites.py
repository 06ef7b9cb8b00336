"""The hardest control: each single refusal in the program is taken out in turn, and some case must notice."""

import ast
import types
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from audit_service.offline import verify_file
from tests.support.evidence_base import Case
from tests.support.evidence_cases import bad_cases
from tests.support.evidence_files import policy_cases, proof_cases

SOURCE = Path(verify_file.__file__).read_text("utf-8")
CASES_LIMIT = 12  # of those that a refusal answers, so many are tried without it

# Refusals that something else stands behind, so that no verdict changes without them. They name the fault, or stop early.
BACKED = {
    "is longer than the zip file states": "its length is compared at the end; this one stops a bomb",
    "cannot be unpacked": "two refusals, each behind the other",
    "is cut short": "the directory is held against the file's length; this one is for a file that shrinks meanwhile",
    "ValueError(": "JSON and base64 are written again and must be the same text",
    "a key is not a vkey": "its id is compared, too",
    "a prune entry's frontier does not fit its cut": "its fold is compared with the root",
    "too much is wrong": "cases too large for here, judged by test_verify_file",
    "has a line longer than": "cases too large for here, judged by test_verify_file",
    "`cryptography` is not installed": "has its own test",
    "the proof holds no entry": "a check that nobody made is not_checked; this one only gives the reason",
    "a proof of one entry brings no control entries": "likewise",
}


@cache
def cases() -> tuple[Case, ...]:
    """What must be refused, small ones only."""
    every = (*bad_cases(), *policy_cases(), *proof_cases())
    return tuple(
        case for case in every if case.exit != 0 and len(case.data) < 200_000 and "without end" not in case.name
    )


class _Sites(ast.NodeTransformer):
    """Finds refusals: `raise X(…)`, `x.fail(…)`, `x.leave(…)`. Removes number `removed`, or has each note that it is reached.

    Not `_require` of the zip reader: its refusals overlap, and a test flips bits of whole zip files instead.
    """

    def __init__(self, removed: int | None = None) -> None:
        self.removed, self.reasons = removed, list[str]()

    def visit_Raise(self, node: ast.Raise) -> Any:
        return self._site(node, node.exc) if isinstance(node.exc, ast.Call) else node

    def visit_Expr(self, node: ast.Expr) -> Any:
        call = node.value
        is_refusal = (
            isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in {"fail", "leave"}
        )
        return self._site(node, call) if is_refusal else node

    def _site(self, node: ast.stmt, call: ast.expr) -> Any:
        number = len(self.reasons)
        self.reasons.append(ast.unparse(call))
        if self.removed is not None:
            return ast.Pass() if number == self.removed else node
        return [*ast.parse(f"_REACHED.add({number})").body, node]


def _variant(sites: _Sites) -> types.ModuleType:
    """The program after the transformation, as a module."""
    tree = ast.fix_missing_locations(sites.visit(ast.parse(SOURCE)))
    module = types.ModuleType("verify_variant")
    module.__dict__["_REACHED"] = set[int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "verify_variant", module)  # dataclasses look their module up
        exec(compile(tree, "verify_variant", "exec"), module.__dict__)  # noqa: S102
    return module


def _outcome(module: types.ModuleType, case: Case, folder: Path) -> object:
    """The verdicts, and whether anything could be read; an exception's name where the variant falls over."""
    bundle, policy = folder / "bundle", folder / "policy"
    bundle.write_bytes(case.data)
    policy.write_bytes(case.policy or b"")
    try:
        report = module.verify(bundle, case.keys, None if case.policy is None else policy, processes=1)
    except Exception as error:  # noqa: BLE001 - whatever a broken variant raises
        return type(error).__name__
    return report.unreadable is None, {name: check.verdict for name, check in report.checks().items()}


def test_no_refusal_can_be_taken_out_unnoticed(tmp_path: Path) -> None:
    sites = _Sites()
    probe = _variant(sites)
    reached_by: dict[int, list[Case]] = {}
    whole: dict[str, object] = {}
    for case in cases():
        probe.__dict__["_REACHED"].clear()
        whole[case.name] = _outcome(probe, case, tmp_path)
        for number in probe.__dict__["_REACHED"]:
            reached_by.setdefault(number, []).append(case)
    unnoticed = []
    for number, reason in enumerate(sites.reasons):
        if any(backed in reason for backed in BACKED):
            continue
        variant = _variant(_Sites(removed=number))
        # Those with the fewest failing checks first: what is refused for one reason notices soonest.
        tried = sorted(reached_by.get(number, ()), key=lambda case: len(case.fails))[:CASES_LIMIT]
        if all(_outcome(variant, case, tmp_path) == whole[case.name] for case in tried):
            unnoticed.append((reason, [case.name for case in tried[:3]]))
    assert len(sites.reasons) > 80
    assert unnoticed == [], "\n".join(map(str, unnoticed))
