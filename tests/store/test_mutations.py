"""Random mutations of a log are all found, where they are; random clean logs raise no alarm. At full length: `make soak`."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from audit_service.core.checker import Checker
from audit_service.core.explanation import Explanations
from audit_service.store.engine import Database
from tests.support.appends import owner
from tests.support.mutations import clean_alarms, mutate, seed
from tests.support.postgres import TestDatabase
from tests.support.tampering import Lab

MUTATIONS = 300
CONTROLS = 120
CLEAN_LOGS = 20


async def test_random_mutations_are_found_where_they_are(lab: Lab) -> None:
    """Any column of any row of entry, receipt and log, any bit."""
    assert await mutate(lab, MUTATIONS, Random(seed())) == ([], [])  # noqa: S311 - a test's chance, no secret


async def test_clean_logs_raise_no_alarm(database: TestDatabase, pools: Database) -> None:
    async with owner(database) as admin:
        assert await clean_alarms(database, pools, admin, CLEAN_LOGS, Random(seed())) == []  # noqa: S311 - as above


CHECKS = ("_check_body", "_check_contents", "_check_disclosures", "_check_projection", "_check_head", "receipt_fault")


@pytest.mark.parametrize("check", CHECKS)
async def test_a_verifier_without_one_of_its_checks_misses_mutations(
    lab: Lab, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same harness on a verifier that was made blind in one place goes red."""
    genuine: Callable[..., Any] = getattr(Checker, check)
    monkeypatch.setattr(Checker, check, _blind(check, genuine))
    missed, _ = await mutate(lab, CONTROLS, Random(1))  # noqa: S311 - as above
    assert missed


async def test_a_verifier_that_keeps_silent_about_headers_misses_mutations(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of a header shows in the receipt as well; its kind shows nowhere else."""
    genuine = Checker._break

    def silent(self: Checker, seq: int, found: Any, *told: Any) -> None:
        if found != "header_mismatch":
            genuine(self, seq, found, *told)

    monkeypatch.setattr(Checker, "_break", silent)
    assert await mutate(lab, MUTATIONS, Random(2)) != ([], [])  # noqa: S311 - as above


async def test_a_verifier_that_knows_no_control_entries_raises_false_alarms(
    database: TestDatabase, pools: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the clean logs."""
    monkeypatch.setattr(Explanations, "add", lambda *_: None)
    async with owner(database) as admin:
        assert await clean_alarms(database, pools, admin, CLEAN_LOGS, Random(1))  # noqa: S311 - as above


def _blind(check: str, genuine: Callable[..., Any]) -> Callable[..., Any]:
    if check == "_check_disclosures":
        # What was found is forgotten; the values go on to the columns.
        def trusting(self: Checker, row: Any, body: Any) -> Any:
            breaks, total = list(self.breaks), self.breaks_total
            values = genuine(self, row, body)
            self.breaks, self.breaks_total = breaks, total
            return values

        return trusting
    return lambda *_: None
