"""However a head row is damaged, verification ends in a report that names it, and nobody is answered with an internal error."""

import tracemalloc
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from audit_service import verification as verifying
from audit_service.core.batch import Run
from audit_service.core.checker import Checker
from audit_service.store.batches import BatchReader
from tests.support.api import Api
from tests.support.apps import open_api
from tests.support.tampering import SIZE, Lab, no_batch, report_of

CONSTRAINTS = ("log_size", "log_last_hash", "log_frontier", "log_key_hex", "log_pkey")
COLUMNS = ("service_name", "log_key", "epoch", "size", "last_hash", "last_recorded_at", "frontier")
END = SIZE - 1
# Assignment → the breaks: seq, kind and what was found.
UNREADABLE: dict[str, list[tuple[int, str, str | int | None]]] = {
    "service_name = NULL": [(0, "head_mismatch", "no service_name")],
    "log_key = NULL": [(0, "head_mismatch", "no log_key")],
    "service_name = NULL, log_key = NULL": [(0, "head_mismatch", "no service_name"), (0, "head_mismatch", "no log_key")],
    "epoch = NULL": [(END, "head_mismatch", "epoch unreadable")],
    "size = NULL": [(END, "head_mismatch", "size None")],
    "size = -1": [(END, "head_mismatch", "size -1")],
    "size = -9223372036854775808": [(END, "head_mismatch", f"size {-(2**63)}")],
    "last_hash = NULL": [(END, "head_mismatch", "last_hash unreadable")],
    "last_hash = ''": [(END, "head_mismatch", "")],
    "last_recorded_at = NULL": [(END, "head_mismatch", "last_recorded_at unreadable")],
    "last_recorded_at = 'infinity'": [(END, "head_mismatch", "last_recorded_at unreadable")],
    "last_recorded_at = '-infinity'": [(END, "head_mismatch", "last_recorded_at unreadable")],
    "last_recorded_at = '200000-01-01'": [(END, "head_mismatch", "last_recorded_at unreadable")],
    "last_recorded_at = '4000-01-01 BC'": [(END, "head_mismatch", "last_recorded_at unreadable")],
    "frontier = NULL": [(END, "root_mismatch", None)],
    "frontier = ''": [(END, "root_mismatch", None)],
    "frontier = substr(frontier, 1, 63)": [(END, "root_mismatch", None)],
    "frontier = frontier || frontier": [(END, "root_mismatch", None)],
    "epoch = NULL, size = NULL, last_hash = NULL, last_recorded_at = NULL, frontier = NULL": [
        (END, "head_mismatch", "size None"),
        (END, "head_mismatch", "last_hash unreadable"),
        (END, "head_mismatch", "epoch unreadable"),
        (END, "head_mismatch", "last_recorded_at unreadable"),
        (END, "root_mismatch", None),
    ],
}  # fmt: skip
NOT_SHOWN = (
    "service_name = NULL", "service_name = 'a b'", "log_key = 'x'", "epoch = NULL", "epoch = -1", "size = NULL", "size = -1",
    "last_hash = NULL", "last_recorded_at = NULL", "last_recorded_at = 'infinity'", "last_recorded_at = '4000-01-01 BC'",
    "frontier = NULL",
)  # fmt: skip


@pytest.fixture
async def api(lab: Lab) -> AsyncIterator[Api]:
    """The service on the log's database."""
    async with open_api(lab.log.database) as opened:
        yield opened


async def damage(lab: Lab, assignment: str) -> None:
    """Whatever kept the row sound is dropped first; `Lab.restore` puts it back."""
    for name in CONSTRAINTS:
        await lab.execute(f"ALTER TABLE audit.log DROP CONSTRAINT {name}")
    for column in COLUMNS:
        await lab.execute(f"ALTER TABLE audit.log ALTER COLUMN {column} DROP NOT NULL")
    await lab.execute(f"UPDATE audit.log SET {assignment} WHERE log_id = $1", lab.log_id)


async def report(api: Api, **parts: Any) -> dict[str, Any]:
    """The report over HTTP, which must agree with the status."""
    answer = await api.verify(**parts)
    assert (answer["breaks_total"], answer["status"]) == (len(answer["breaks"]), "broken")
    return answer


@pytest.mark.parametrize("assignment", UNREADABLE)
async def test_a_head_that_cannot_be_read_is_named(lab: Lab, api: Api, assignment: str) -> None:
    """Over HTTP as well; and the entries are checked all the same when the log has an origin."""
    await damage(lab, assignment)
    found = await report_of(lab.pools, lab.log_id)
    assert [(item.seq, item.kind, item.found) for item in found.breaks] == UNREADABLE[assignment]
    answer = await report(api)  # and then a note of it is appended, where that still can be
    assert [(item["seq"], item["kind"], item["found"]) for item in answer["breaks"]] == UNREADABLE[assignment]
    assert answer["checked"]["count"] == (
        0 if "no service_name" in str(answer) or "no log_key" in str(answer) else SIZE
    )


@pytest.mark.parametrize("bits", [27, 62])
async def test_a_head_that_claims_more_entries_than_there_are_costs_no_memory(lab: Lab, bits: int) -> None:
    """Found by the soak: a list of every claimed seq took 20 GB, and the verification with it."""
    await damage(lab, f"size = size + {2**bits}")
    tracemalloc.start()
    try:
        found = await report_of(lab.pools, lab.log_id)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found.status, found.count) == ("broken", SIZE)
    first = min(found.breaks, key=lambda item: item.seq)
    assert (first.seq, first.kind, first.expected) == (SIZE, "truncated", SIZE + 2**bits)
    assert peak_bytes < 50 * 2**20


async def test_entries_are_checked_though_the_head_is_damaged(lab: Lab, api: Api) -> None:
    await lab.edit(6, "body = body || ' '")
    await damage(lab, "size = NULL, last_hash = NULL")
    breaks = (await report(api))["breaks"]
    assert [(item["seq"], item["kind"]) for item in breaks] == [
        (END, "head_mismatch"),
        (6, "body_mismatch"),
        (END, "head_mismatch"),
    ]


async def test_a_doubled_head_is_named(lab: Lab, api: Api) -> None:
    """Which of the two is the log's, nobody can tell."""
    await damage(lab, "size = size")
    await lab.execute("INSERT INTO audit.log SELECT * FROM audit.log WHERE log_id = $1", lab.log_id)
    answer = await report(api)
    assert [item["found"] for item in answer["breaks"]] == ["more than one head row"]
    assert answer["not_checked"] == ["every entry: without its head row the log has no origin"]
    await refused(api)


async def test_a_deleted_head_is_named(lab: Lab, api: Api) -> None:
    await lab.execute("DELETE FROM audit.log WHERE log_id = $1", lab.log_id)
    assert [item["found"] for item in (await report(api))["breaks"]] == ["no head row"]
    await refused(api)


async def refused(api: Api, *paths: str) -> None:
    """A problem that says what to do, not an internal error."""
    for path in paths or ("/v1/chain", "/v1/export"):
        response = await api.client.get(path)
        assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json"), path
        assert "head row" in response.json()["detail"]


@pytest.mark.parametrize("assignment", NOT_SHOWN)
async def test_a_damaged_head_is_not_shown(lab: Lab, api: Api, assignment: str) -> None:
    await damage(lab, assignment)
    await refused(api, "/v1/chain")


@pytest.mark.parametrize(("in_batches", "from_seq"), [(False, 5), (True, 4)])
async def test_an_unexpected_error_ends_in_an_incomplete_report(
    api: Api, monkeypatch: pytest.MonkeyPatch, *, in_batches: bool, from_seq: int
) -> None:
    """The stream has begun, so an error page cannot be sent any more: the report says it, by the error's class only."""
    check, accept = Checker.check, Run.accept

    def stumble(self: Checker, row: Any) -> None:
        if row.seq == 5:
            raise ZeroDivisionError("a secret")
        check(self, row)

    def stumble_in_batches(self: Run, rows: Sequence[Any]) -> bool:
        if self.checker.expected_seq + len(rows) > 5:
            raise ZeroDivisionError("a secret")
        return accept(self, rows)

    monkeypatch.setattr(verifying, "SLICE_ENTRIES", 2)
    monkeypatch.setattr(Checker, "check", stumble)
    monkeypatch.setattr(Run, "accept", stumble_in_batches)
    if not in_batches:
        monkeypatch.setattr(BatchReader, "fetch", no_batch)
    answer = await api.verify()
    assert (answer["status"], answer["breaks"], answer["root"]) == ("incomplete", [], None)
    assert answer["not_checked"][0] == f"seq {from_seq} and after: the verification itself failed (ZeroDivisionError)"
    assert "secret" not in str(answer)
