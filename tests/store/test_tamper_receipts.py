"""Receipts are held against their entries, both ways; and the epoch moves only with a `resume` entry."""

from types import SimpleNamespace

import pytest

from audit_service import verification as verifying
from audit_service.core.chain import body_hash, entry_hash, header_bytes
from audit_service.core.checker import EPOCH, Checker, Head
from audit_service.core.sight import EVERYTHING
from audit_service.store.engine import bound
from audit_service.store.find import list_entries
from audit_service.store.query import find_entry
from audit_service.store.selection import Filter, Selection
from audit_service.verification import COLUMNS
from tests.support.tampering import FULL_SEQ, SIZE, Lab, kinds_at, seqs

UPDATE = "UPDATE audit.receipt SET {} WHERE log_id = $1 AND id = 'e-6'"
CHANGES = {
    "seq": "seq = 4",
    "hash": "hash = set_bit(hash, 0, 1 - get_bit(hash, 0))",
    "prev_hash": "prev_hash = hash",
    "epoch": "epoch = 2",
    "recorded_at": "recorded_at = recorded_at + interval '1 microsecond'",
}


async def receipt_breaks(lab: Lab, **parts: int) -> list[tuple[int, str | int | None]]:
    """Seq and expectation of each break, all of which must be about receipts."""
    report = await lab.report(**parts)
    assert {(item.kind, item.found) for item in report.breaks} <= {("projection_mismatch", "receipt")}
    assert report.status == ("broken" if report.breaks else "ok")
    return [(item.seq, item.expected) for item in report.breaks]


@pytest.mark.parametrize("column", CHANGES)
async def test_a_changed_receipt_shows(lab: Lab, column: str) -> None:
    """At the seq of its entry, with the name of what is not the entry's."""
    await lab.execute(UPDATE.format(CHANGES[column]), lab.log_id)
    found = await receipt_breaks(lab)
    assert found[0] == (6, f"{column} as in the entry")
    # A receipt that points elsewhere is also a stray where it points.
    assert found[1:] == ([(4, "a receipt of this entry's id")] if column == "seq" else [])
    assert await receipt_breaks(lab, from_seq=6, to_seq=7) == found[:1]
    assert await receipt_breaks(lab, from_seq=0, to_seq=6) == []


@pytest.mark.parametrize("time", ["infinity", "-infinity", "200000-01-01"])
async def test_a_receipt_with_a_time_beyond_the_calendar_shows(lab: Lab, time: str) -> None:
    await lab.execute(UPDATE.format(f"recorded_at = '{time}'"), lab.log_id)
    assert await receipt_breaks(lab) == [(6, "recorded_at as in the entry")]


async def test_a_receipt_that_says_not_kept_shows(lab: Lab) -> None:
    await lab.execute(
        UPDATE.format("kept = false, seq = NULL, hash = NULL, prev_hash = NULL"),
        lab.log_id,
    )
    assert await receipt_breaks(lab) == [(6, "seq, hash, prev_hash, kept as in the entry")]
    await lab.restore()
    await lab.execute("ALTER TABLE audit.receipt DROP CONSTRAINT receipt_kept")
    await lab.execute(UPDATE.format("kept = false"), lab.log_id)
    assert await receipt_breaks(lab) == [(6, "kept as in the entry")]


async def test_a_deleted_receipt_shows(lab: Lab) -> None:
    """Without it the event could be sent once more and stored twice."""
    await lab.execute("DELETE FROM audit.receipt WHERE log_id = $1 AND id = 'e-6'", lab.log_id)
    assert await receipt_breaks(lab) == [(6, "one receipt of the entry's id")]


async def test_a_doubled_receipt_shows(lab: Lab) -> None:
    await lab.execute("ALTER TABLE audit.receipt DROP CONSTRAINT receipt_pkey")
    await lab.execute(
        "INSERT INTO audit.receipt SELECT * FROM audit.receipt WHERE log_id = $1 AND id = 'e-6'", lab.log_id
    )
    assert await receipt_breaks(lab) == [(6, "one receipt of the entry's id")]


FORGE = """
    INSERT INTO audit.receipt SELECT log_id, {seq}, recorded_at, epoch, kept, 'forged', prev_hash, hash, salt, fingerprint, ruleset
    FROM audit.receipt WHERE log_id = $1 AND id = 'e-6'
"""


@pytest.mark.parametrize("slice_receipts", [1, 5, SIZE, SIZE + 1, 10_000])
@pytest.mark.parametrize("seq", [0, 6, SIZE - 1])
async def test_a_forged_receipt_of_a_real_entry_shows(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, seq: int, slice_receipts: int
) -> None:
    """An id that no entry has, pointing at one; also where it is the perfect copy of the entry's own."""
    monkeypatch.setattr(verifying, "SLICE_RECEIPTS", slice_receipts)
    await lab.execute(FORGE.format(seq=seq), lab.log_id)
    assert await receipt_breaks(lab) == [(seq, "a receipt of this entry's id")]


@pytest.mark.parametrize("seq", [-1, SIZE, SIZE + 5, 2**62])
async def test_a_receipt_of_no_entry_shows(lab: Lab, seq: int) -> None:
    """It would answer a resent event with a place in the log that is not there."""
    await lab.execute(FORGE.format(seq=seq), lab.log_id)
    assert await receipt_breaks(lab) == [(seq, "a receipt of an entry that is there")]


async def test_a_cut_tail_with_its_head_reset_shows_by_the_receipts_left_behind(lab: Lab) -> None:
    hashes = [row["hash"] for row in await lab.rows()]
    await lab.execute("DELETE FROM audit.entry WHERE log_id = $1 AND seq >= 9", lab.log_id)
    await lab.set_head(hashes[:9])
    assert [seq for seq, _ in await receipt_breaks(lab)] == list(range(9, SIZE))


async def test_swapped_receipts_show(lab: Lab) -> None:
    """As many as there are entries, each true of some entry, and two of them of another's."""
    await lab.execute(
        "UPDATE audit.receipt SET id = CASE id WHEN 'e-4' THEN 'swap' ELSE 'e-4' END WHERE log_id = $1 AND id IN ('e-4', 'e-7')",
        lab.log_id,
    )
    await lab.execute("UPDATE audit.receipt SET id = 'e-7' WHERE log_id = $1 AND id = 'swap'", lab.log_id)
    assert [seq for seq, _ in await receipt_breaks(lab)] == [4, 7]


async def test_a_second_entry_with_the_id_of_another_shows(lab: Lab) -> None:
    """Also when everything is re-hashed: an id has one receipt, and that is of one seq."""
    await lab.edit(
        FULL_SEQ, "id = 'e-2', body = replace(body, '\"e-6\"', '\"e-2\"'), search = replace(search, 'e-6', 'e-2')"
    )
    await lab.execute("DELETE FROM audit.receipt WHERE log_id = $1 AND id = 'e-6'", lab.log_id)
    await lab.execute("UPDATE audit.receipt SET id = 'e-6' WHERE log_id = $1 AND id = 'e-2'", lab.log_id)
    await lab.rehash_entries(FULL_SEQ)
    report = await lab.report()
    assert report.status == "broken"
    assert {(FULL_SEQ, "receipt"), (2, "receipt")} <= {(item.seq, item.found) for item in report.breaks}


async def test_an_event_without_id_is_held_against_its_receipt_s_hash(lab: Lab) -> None:
    """What an erasure of its body leaves: no id to look for, yet a receipt moved onto it shows."""
    await lab.edit(6, "body = NULL, id = NULL")
    assert kinds_at(await lab.report(), 6) == {"unrecorded_erasure"}
    await lab.execute("DELETE FROM audit.receipt WHERE log_id = $1 AND id = 'e-6'", lab.log_id)
    await lab.execute(
        "INSERT INTO audit.receipt SELECT log_id, 6, recorded_at, epoch, kept, 'forged', prev_hash, hash, salt, fingerprint, ruleset"
        " FROM audit.receipt WHERE log_id = $1 AND id = 'e-7'",
        lab.log_id,
    )
    assert kinds_at(await lab.report(), 6) == {"unrecorded_erasure", "projection_mismatch"}


async def test_a_forged_receipt_serves_no_other_event(lab: Lab) -> None:
    """Neither by its path nor by the filter; whoever asks for `e-6` is never shown another's deed."""
    await lab.execute(UPDATE.format("seq = 4"), lab.log_id)
    await lab.execute(FORGE.format(seq=7), lab.log_id)
    async with bound(lab.pools.reads, lab.log_id, EVERYTHING) as connection:
        for event_id in ("e-6", "forged"):
            assert await find_entry(connection, lab.log_id, event_id, EVERYTHING) is None
            page = await list_entries(connection, lab.log_id, Selection((Filter("id", (event_id,)),), sight=EVERYTHING))
            assert page.rows == []
        found = await find_entry(connection, lab.log_id, "e-7", EVERYTHING)
        assert found is not None
        assert found.seq == 7


# --- the epoch


async def test_an_epoch_that_jumps_shows_though_everything_is_rehashed(lab: Lab) -> None:
    """By who can write every row: nothing but a `resume` entry raises the epoch."""
    await lab.edit(FULL_SEQ, "epoch = 2")
    await lab.rehash(FULL_SEQ)
    report = await lab.report()
    assert [(item.seq, item.kind, item.expected, item.found) for item in report.breaks] == [
        (FULL_SEQ, "header_mismatch", "epoch 1", "epoch 2"),
        (FULL_SEQ + 1, "header_mismatch", "epoch 2", "epoch 1"),
    ]


async def test_a_range_starts_from_the_epoch_of_the_entry_before(lab: Lab) -> None:
    await lab.execute("UPDATE audit.entry SET epoch = 2 WHERE log_id = $1 AND seq >= 6", lab.log_id)
    await lab.execute("UPDATE audit.log SET epoch = 2 WHERE log_id = $1", lab.log_id)
    await lab.rehash(6)
    assert seqs((await lab.report()).breaks) == [6]
    assert seqs((await lab.report(from_seq=6)).breaks) == [6]
    assert seqs((await lab.report(from_seq=7)).breaks) == []


@pytest.mark.parametrize(
    ("epochs", "resumes", "breaks"),
    [
        ((1, 1, 2, 2), {2}, []),
        ((1, 2, 3, 3), {1, 2}, []),
        ((1, 1, 2, 2), set(), [2]),
        ((1, 1, 3, 3), {2}, [2]),
        ((2, 2, 2, 2), set(), [0]),
        ((2, 2, 2, 2), {0}, [0]),
        ((1, 2, 1, 1), {1, 2}, [2]),
    ],
)
def test_only_a_resume_raises_the_epoch_by_one(epochs: tuple[int, ...], resumes: set[int], breaks: list[int]) -> None:
    """Entries whose hashes all hold; what is left to judge is the epoch."""
    head = Head("audit.example.com", "0" * 32, epochs[-1], len(epochs), b"", None, b"")
    checker = Checker(head)
    for seq, epoch in enumerate(epochs):
        assert checker.prev_hash is not None
        checker.check(sealed(head, seq, epoch, "resume" if seq in resumes else "event", checker.prev_hash))
    found = [(item.seq, item.kind) for item in checker.breaks if item.kind != "projection_mismatch"]
    assert found == [(seq, "header_mismatch") for seq in breaks]


def sealed(head: Head, seq: int, epoch: int, kind: str, prev_hash: bytes) -> SimpleNamespace:
    """A row as it is read, of an entry that says nothing."""
    body = '{"v":1}'
    digest = body_hash(body)
    hashed = entry_hash(header_bytes(head.origin(epoch), seq, 0, kind, prev_hash, digest))
    row = dict.fromkeys(COLUMNS)
    return SimpleNamespace(
        **row
        | {"seq": seq, "recorded_at": EPOCH, "epoch": epoch, "kind": kind, "prev_hash": prev_hash}
        | {"body_hash": digest, "hash": hashed, "body": body}
    )
