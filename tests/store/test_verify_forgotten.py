"""Lawful forgetting is not tampering: what control entries explain is ok, and nothing beyond it."""

from typing import Any

import orjson
import pytest

from audit_service import verification as verifying
from audit_service.core import chain, control
from audit_service.core.checker import microseconds
from audit_service.core.control import ErasedItem
from audit_service.core.merkle import Frontier
from audit_service.core.vkey import Signer
from audit_service.verify import Report, verify
from tests.support.forgotten import Forgetter, act
from tests.support.tampering import CHECKPOINT, FULL_SEQ, SIZE, SPARSE_SEQ, Lab, kinds_at, report_of, seqs

GONE = ("body", *(f"d_{group}" for group in ("actor", "target", "changes", "text")))


@pytest.fixture
def forget(lab: Lab) -> Forgetter:
    """Whoever forgets in the log."""
    return Forgetter(lab.admin, lab.log_id, lab.origin)


def found(report: Report) -> list[tuple[int, str]]:
    """Where what breaks."""
    return [(item.seq, item.kind) for item in report.breaks]


# --- dropped


async def test_dropped_entries_are_explained(lab: Lab, forget: Forgetter) -> None:
    await forget.drop((2, 5), (FULL_SEQ, FULL_SEQ + 1))
    report = await lab.report()
    assert (report.status, report.dropped, report.not_checked) == ("ok", 4, [CHECKPOINT])
    report = await lab.report(depth="chain")
    assert (report.status, report.dropped) == ("ok", 4)


async def test_nothing_beyond_the_dropped_ranges_is_explained(lab: Lab, forget: Forgetter) -> None:
    """Neither the entry before nor the one after."""
    await forget.drop((3, 5))
    for seq in (2, 5):
        await lab.edit(seq, "body = NULL")
    report = await lab.report()
    assert [item for item in found(report) if item[1] == "unrecorded_erasure"] == [
        (2, "unrecorded_erasure"),
        (5, "unrecorded_erasure"),
    ]
    assert set(seqs(report.breaks)) == {2, 5}


@pytest.mark.parametrize(("assignment", "kind"), [
    ("d_text = decode(repeat('00', 33), 'hex')", "disclosure_mismatch"), ("actor_name = 'Zoë'", "projection_mismatch"),
    ("search = 'zoe'", "projection_mismatch"), ("ip = '192.0.2.1'", "projection_mismatch"),
])  # fmt: skip
async def test_nothing_may_be_left_of_a_dropped_entry(lab: Lab, forget: Forgetter, assignment: str, kind: str) -> None:
    await forget.drop((FULL_SEQ, FULL_SEQ + 1))
    await lab.edit(FULL_SEQ, assignment)
    assert found(await lab.report()) == [(FULL_SEQ, kind)]


async def test_the_receipt_of_a_dropped_entry_stays_and_is_checked(lab: Lab, forget: Forgetter) -> None:
    """By its hash: the id is gone with the body."""
    await forget.drop((FULL_SEQ, FULL_SEQ + 1))
    await lab.execute(
        "UPDATE audit.receipt SET hash = sha256('x') WHERE log_id = $1 AND seq = $2", lab.log_id, FULL_SEQ
    )
    assert found(await lab.report()) == [(FULL_SEQ, "projection_mismatch")]


async def test_a_control_entry_is_never_dropped(lab: Lab, forget: Forgetter) -> None:
    """Not even by a range that says so."""
    await forget.drop((1, 2))
    await forget.append(control.drop(act(), [(0, SIZE + 1)], count=0, policy="clear"))
    await lab.edit(SIZE, "body = NULL, id = NULL")
    assert (SIZE, "unrecorded_erasure") in found(await lab.report())


async def test_an_edited_control_entry_explains_nothing(lab: Lab, forget: Forgetter) -> None:
    await forget.drop((2, 3))
    await lab.edit(SIZE, "body = replace(body, '[[2,3]]', '[[2,4]]')")
    await lab.edit(3, "body = NULL")
    report = await lab.report()
    assert {(2, "unrecorded_erasure"), (3, "unrecorded_erasure"), (SIZE, "body_mismatch")} <= {*found(report)}


# --- erased


async def test_erased_disclosures_are_explained(lab: Lab, forget: Forgetter) -> None:
    await forget.erase(FULL_SEQ, "actor", "ip", "changes")
    await forget.erase(0, "actor")
    report = await lab.report()
    assert (report.status, report.erased, report.dropped, report.not_checked) == ("ok", 4, 0, [CHECKPOINT])


async def test_nothing_beyond_the_erased_disclosures_is_explained(lab: Lab, forget: Forgetter) -> None:
    """Another group of the same entry, and the same group of another."""
    await forget.erase(FULL_SEQ, "ip")
    await lab.edit(FULL_SEQ, "d_metadata = NULL")
    await lab.edit(2, "d_metadata = NULL")
    report = await lab.report()
    assert [(item.seq, item.kind, item.expected) for item in report.breaks] == [
        (2, "unrecorded_erasure", "metadata"), (FULL_SEQ, "unrecorded_erasure", "metadata"),
    ]  # fmt: skip


@pytest.mark.parametrize("item", [(2, "actor", 0), (2, "metadata", 1), (3, "metadata", 0)])
async def test_an_erasure_explains_only_what_it_names(lab: Lab, forget: Forgetter, item: tuple[int, str, int]) -> None:
    """The same seq, group and commitment."""
    seq, group, flip = item
    row = (await lab.rows())[2]
    stored = bytes.fromhex(orjson.loads(row["body"])["sd"]["metadata"])
    named = ErasedItem(seq, group, bytes([stored[0] ^ flip, *stored[1:]]))
    await forget.append(control.erase(act(), [named], request_hash=bytes(32)))
    await lab.edit(2, "d_metadata = NULL")
    assert found(await lab.report()) == [(2, "unrecorded_erasure")]


async def test_a_control_entry_that_cannot_be_understood_is_not_ok(lab: Lab, forget: Forgetter) -> None:
    await forget.append(control.drop(act(), [(5, 3)], count=0, policy="clear"))
    report = await lab.report()
    assert (report.status, report.breaks) == ("incomplete", [])
    assert f"seq {SIZE}: the details are not those of a drop entry" in report.not_checked


# --- while it is verified


@pytest.mark.parametrize("depth", ["chain", "all"])
async def test_what_is_forgotten_meanwhile_is_explained(
    lab: Lab, forget: Forgetter, monkeypatch: pytest.MonkeyPatch, depth: str
) -> None:
    """The check goes on to the entry that says so."""
    monkeypatch.setattr(verifying, "SLICE_ENTRIES", 2)
    waiting: list[Any] = [forget.drop((8, 10)), forget.erase(FULL_SEQ, "actor"), forget.drop((SPARSE_SEQ, 5), (10, 11))]
    async for step in verify(lab.pools.reads, lab.log_id, depth=depth):  # type: ignore[arg-type] # of the parameters above
        if waiting:
            await waiting.pop(0)
        last = step
    assert isinstance(last, Report)
    assert (last.status, last.breaks) == ("ok", [])
    assert last.to_seq == last.count
    assert last.to_seq > SIZE
    assert last.dropped >= 3


async def test_a_part_of_the_log_is_explained_by_what_comes_after_it(lab: Lab, forget: Forgetter) -> None:
    """And says how far the control entries were looked at."""
    await forget.drop((2, 4))
    report = await lab.report(from_seq=1, to_seq=5)
    assert (report.status, report.dropped, report.to_seq) == ("ok", 2, 5)
    assert any(item.startswith("control entries after the range") for item in report.not_checked)


@pytest.mark.parametrize("forgotten", ["drop", "erase"])
async def test_a_part_of_the_log_is_not_ok_by_a_control_entry_that_is_not_in_the_chain(
    lab: Lab, forget: Forgetter, forgotten: str
) -> None:
    """By itself it is what its hashes say, but its predecessor never was: the head's root does not cover it."""
    await (forget.drop((2, 4)) if forgotten == "drop" else forget.erase(2, "metadata"))
    row = (await lab.rows())[SIZE]
    at_us = microseconds(row["recorded_at"])
    header = chain.header_bytes(lab.origin, SIZE, at_us, row["kind"], bytes(32), row["body_hash"])
    await lab.edit(SIZE, f"prev_hash = '\\x{bytes(32).hex()}', hash = '\\x{chain.entry_hash(header).hex()}'")
    assert "link_broken" in {kind for _, kind in found(await lab.report())}
    report = await lab.report(from_seq=1, to_seq=5)
    assert (report.status, report.breaks) == ("incomplete", [])
    assert any(item.startswith(f"seq {SIZE}: its place in the chain") for item in report.not_checked)
    assert (await lab.report(from_seq=4, to_seq=5)).status == "ok"  # which it explains nothing of


async def test_a_log_pruned_meanwhile_is_checked_from_its_cut(
    lab: Lab, forget: Forgetter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "SLICE_ENTRIES", 2)
    pruned = False
    async for step in verify(lab.pools.reads, lab.log_id, trusted=[forget.signer.verifier()]):
        if not pruned:
            await forget.prune(9)
            pruned = True
        last = step
    assert isinstance(last, Report)
    assert (last.status, last.breaks, last.pruned_before, last.from_seq) == ("ok", [], 9, 9)


# --- pruned


@pytest.mark.parametrize("cut", [1, 4, 7, SIZE])
@pytest.mark.parametrize("delete", [True, False])
async def test_a_pruned_log_is_checked_from_its_cut(lab: Lab, forget: Forgetter, cut: int, *, delete: bool) -> None:
    """With the root of the whole log, and whether or not all rows are deleted yet."""
    await forget.prune(cut, delete=delete)
    hashes = [
        row["hash"]
        for row in await lab.admin.fetch("SELECT hash FROM kept.entry WHERE log_id = $1 ORDER BY seq", lab.log_id)
    ]
    hashes += [row["hash"] for row in await lab.rows() if row["seq"] >= SIZE]
    whole = Frontier()
    whole.extend(hashes)
    if not delete:
        await lab.edit(0, "recorded_at = recorded_at + interval '1 hour'")
    report = await lab.report(trusted=[forget.signer.verifier()])
    assert (report.status, report.breaks, report.pruned_before) == ("ok", [], cut)
    assert (report.from_seq, report.to_seq, report.count) == (cut, SIZE + 2, SIZE + 2 - cut)
    assert report.root == whole.root().hex()
    left = "" if delete else "; rows of them that are still there are being deleted"
    assert report.not_checked[0] == f"entries below seq {cut}: pruned{left}"


async def test_a_prune_entry_needs_a_known_key(lab: Lab, forget: Forgetter) -> None:
    """None given: it cannot be told. Another one: nobody signed what is gone."""
    await forget.prune(4)
    report = await lab.report()
    assert (report.status, report.breaks) == ("incomplete", [])
    other = Signer.from_seed(lab.origin, bytes(32))
    report = await lab.report(trusted=[other.verifier()])
    assert found(report) == [(SIZE + 1, "unrecorded_prune")]


@pytest.mark.parametrize("wrong", [
    {"root": bytes(32)}, {"frontier": bytes(32)}, {"prev_hash": bytes(32)}, {"epoch": 2}, {"last_recorded_at_us": 2**52},
])  # fmt: skip
async def test_a_prune_entry_that_is_not_true_shows(lab: Lab, forget: Forgetter, wrong: dict[str, Any]) -> None:
    await forget.prune(4, **wrong)
    report = await lab.report(trusted=[forget.signer.verifier()])
    assert report.status == "broken"
    kinds = {kind for _, kind in found(report)}
    assert kinds & {"unrecorded_prune", "link_broken", "header_mismatch", "time_backwards"}


async def test_a_head_of_the_log_cut_off_without_a_prune_entry_shows(lab: Lab) -> None:
    """With the head row saying so, and without."""
    await lab.execute("DELETE FROM audit.entry WHERE log_id = $1 AND seq < 4", lab.log_id)
    assert found(await lab.report()) == [(0, "gap")]
    await lab.execute("UPDATE audit.log SET pruned_before = 4 WHERE log_id = $1", lab.log_id)
    report = await lab.report()
    assert (0, "unrecorded_prune") in found(report)
    assert report.root is None


async def test_more_or_less_than_the_recorded_prune_shows(lab: Lab, forget: Forgetter) -> None:
    await forget.prune(4)
    trusted = [forget.signer.verifier()]
    for stated, kind in ((6, "unrecorded_prune"), (2, "head_mismatch"), (-1, "head_mismatch"), (99, "head_mismatch")):
        await lab.execute("UPDATE audit.log SET pruned_before = $2 WHERE log_id = $1", lab.log_id, stated)
        assert kind in {kind for _, kind in found(await lab.report(trusted=trusted))}
    await lab.execute("UPDATE audit.log SET pruned_before = 4 WHERE log_id = $1", lab.log_id)
    await lab.execute("DELETE FROM audit.entry WHERE log_id = $1 AND seq = 4", lab.log_id)
    assert found(await lab.report(trusted=trusted)) == [(4, "gap")]


async def test_the_entries_after_a_cut_are_judged_as_ever(lab: Lab, forget: Forgetter) -> None:
    await forget.prune(4)
    await lab.edit(FULL_SEQ, "body = body || ' '")
    report = await lab.report(trusted=[forget.signer.verifier()])
    assert kinds_at(report, FULL_SEQ) == {"body_mismatch"}
    assert seqs(report.breaks) == [FULL_SEQ]


# --- resumed


@pytest.mark.parametrize("genuine", [True, False])
async def test_a_resume_entry_says_how_the_log_stood(lab: Lab, forget: Forgetter, *, genuine: bool) -> None:
    tree = Frontier()
    tree.extend([row["hash"] for row in await lab.rows()])
    note = await forget.checkpoint(SIZE, tree.root())
    await lab.execute("UPDATE audit.log SET epoch = 2 WHERE log_id = $1", lab.log_id)
    root = tree.root() if genuine else bytes(32)
    await forget.append(control.resume(act(), checkpoint=note, size=SIZE, root=root, lost=(SIZE, SIZE + 5)))
    report = await report_of(lab.pools, lab.log_id)
    assert found(report) == ([] if genuine else [(SIZE, "root_mismatch")])
    assert report.origin.endswith("/2")
