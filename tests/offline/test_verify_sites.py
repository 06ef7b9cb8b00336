"""The hardest control: each single refusal in the program is taken out in turn, and some case must notice."""

import ast
import types
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from audit_service.offline import verify_file
from tests.support.evidence_cases import Case, bad_cases
from tests.support.evidence_files import policy_cases, proof_cases

SOURCE = Path(verify_file.__file__).read_text("utf-8")
CASES_LIMIT = 12  # of those that a refusal answers, so many are tried without it

# Refusals that a second one stands behind, so that taking them out changes a reason but no verdict; each with what
# stands behind it. They stay because they name the fault, or stop early.
BACKED = {
    "the checkpoint is too long": "no member over the same limit is read",
}


@cache
def cases() -> tuple[Case, ...]:
    """What must be refused, small ones only."""
    every = (*bad_cases(), *policy_cases(), *proof_cases())
    return tuple(
        case for case in every if case.exit != 0 and len(case.data) < 200_000 and "without end" not in case.name
    )


class _Sites(ast.NodeTransformer):
    """Finds refusals: `raise`, `x.fail(…)`, `x.leave(…)`, `x._require(…)`. Removes number `removed`; notes who is reached."""

    def __init__(self, removed: int | None = None) -> None:
        self.removed, self.reasons = removed, list[str]()

    def visit_Raise(self, node: ast.Raise) -> Any:
        return self._site(node, node.exc) if isinstance(node.exc, ast.Call) else node

    def visit_Expr(self, node: ast.Expr) -> Any:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            if call.func.attr == "_require":
                return self._site(node, call, condition=call.args[0])
            if call.func.attr in {"fail", "leave"}:
                return self._site(node, call)
        return node

    def _site(self, node: ast.stmt, call: ast.Call, condition: ast.expr | None = None) -> Any:
        number = len(self.reasons)
        self.reasons.append(ast.unparse(call))
        if self.removed is not None:
            return ast.Pass() if number == self.removed else node
        reached = ast.parse(f"_REACHED.add({number})").body[0]
        if condition is None:
            return [reached, node]
        return [ast.If(ast.UnaryOp(ast.Not(), condition), [reached], []), node]


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
    """Exit code and failing checks; an exception's name where the variant falls over."""
    bundle, policy = folder / "bundle", folder / "policy"
    bundle.write_bytes(case.data)
    policy.write_bytes(case.policy or b"")
    try:
        report = module.verify(bundle, case.keys, None if case.policy is None else policy, processes=1)
    except Exception as error:  # noqa: BLE001 - whatever a broken variant raises
        return type(error).__name__
    return report.exit_code(), frozenset(report.failed)


def test_no_refusal_can_be_taken_out_unnoticed(tmp_path: Path) -> None:
    sites = _Sites()
    probe = _variant(sites)
    reached_by: dict[int, list[Case]] = {}
    for case in cases():
        probe.__dict__["_REACHED"].clear()
        assert _outcome(probe, case, tmp_path) == (case.exit, case.fails), case.name
        for number in probe.__dict__["_REACHED"]:
            reached_by.setdefault(number, []).append(case)
    unnoticed = []
    for number, reason in enumerate(sites.reasons):
        if any(backed in reason for backed in BACKED):
            continue
        variant = _variant(_Sites(removed=number))
        # Those with the fewest failing checks first: what is refused for one reason notices soonest.
        tried = sorted(reached_by.get(number, ()), key=lambda case: len(case.fails))[:CASES_LIMIT]
        if all(_outcome(variant, case, tmp_path) == (case.exit, case.fails) for case in tried):
            unnoticed.append((reason, [case.name for case in tried[:3]]))
    assert len(sites.reasons) > 100
    assert unnoticed == []
