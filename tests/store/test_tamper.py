"""Tampering shows: every column, every row, the head; what verification says, and what only a checkpoint would show."""

import pytest

from audit_service import verification as verifying
from audit_service.core import chain, checker
from audit_service.core.entry import disclosure_hash
from audit_service.errors import InvalidQueryError
from tests.support.tampering import CHECKPOINT, CONTENTS, FULL_SEQ, SIZE, SPARSE_SEQ, Lab, kinds_at, seqs

# What a changed column must be called. A new column without a line here fails `test_every_column_has_a_verdict`.
GROUPS = ("actor", "actor_email", "on_behalf_of", "ip", "context", "target", "text", "metadata", "changes")
PROJECTIONS = (
    "occurred_at", "source_seq", "id", "action", "verb", "category", "outcome", "actor_type", "actor_id", "actor_name", "actor_email",
    "actor_role", "actor_keys", "target_type", "target_id", "target_name", "server_id", "ip", "session", "request_id", "source_id",
    "paths", "search",
)  # fmt: skip
HEADER = ("recorded_at", "epoch", "kind", "prev_hash", "body_hash", "hash")
VERDICTS = {
    "log_id": "gap",
    "seq": "gap",
    **dict.fromkeys(HEADER, "header_mismatch"),
    "body": "body_mismatch",
    **{f"d_{group}": "disclosure_mismatch" for group in GROUPS},
    **dict.fromkeys(PROJECTIONS, "projection_mismatch"),
}
NULLABLE = [column for column, verdict in VERDICTS.items() if verdict not in {"gap", "header_mismatch"}]
CHANGES = {
    "bigint": "{0} + 1000000",
    "integer": "{0} + 1",
    "text": "{0} || ' '",
    "bytea": "set_bit({0}, 0, 1 - get_bit({0}, 0))",
    "timestamp with time zone": "{0} + interval '1 microsecond'",
    "inet": "{0} + 1",
    "text[]": "{0} || ARRAY['x']",
}
VALUES = {
    "bigint": "1",
    "text": "'{}'",
    "bytea": "decode(repeat('00', 33), 'hex')",
    "timestamp with time zone": "'2026-01-01'",
    "inet": "'192.0.2.1'",
    "text[]": "'{x}'",
}


async def column_types(lab: Lab) -> dict[str, str]:
    """Every column of `entry`, from the catalogue."""
    rows = await lab.admin.fetch("""
        SELECT attname, format_type(atttypid, NULL) AS type FROM pg_attribute
        WHERE attrelid = 'audit.entry'::regclass AND attnum > 0 AND NOT attisdropped
    """)
    return {row["attname"]: row["type"] for row in rows}


# --- columns


async def test_every_column_has_a_verdict(lab: Lab) -> None:
    """And every value there is to change is set in the row the tests change."""
    assert set(VERDICTS) == set(await column_types(lab))
    row = (await lab.rows())[FULL_SEQ]
    assert [column for column in VERDICTS if row[column] is None] == []


@pytest.mark.parametrize("column", VERDICTS)
async def test_a_changed_column_shows(lab: Lab, column: str) -> None:
    """By the smallest change of its type, at its seq, under its name."""
    change = CHANGES[(await column_types(lab))[column]].format(column)
    await lab.edit(FULL_SEQ, f"{column} = {change}")
    report = await lab.report()
    assert report.status == "broken"
    assert report.breaks[0].seq == FULL_SEQ
    assert VERDICTS[column] in kinds_at(report, FULL_SEQ)
    # The entry after it may miss its link, and the head its last row; everybody else is innocent.
    assert set(seqs(report.breaks)) <= {FULL_SEQ, FULL_SEQ + 1, SIZE - 1, SIZE}
    if VERDICTS[column] == "projection_mismatch":
        # Receipts are found by the entry's id, so another id is also an id without its receipt.
        named = [column, "receipt"] if column == "id" else [column]
        assert [(item.kind, item.found) for item in report.breaks] == [("projection_mismatch", name) for name in named]


@pytest.mark.parametrize("column", NULLABLE)
async def test_a_column_set_to_null_shows(lab: Lab, column: str) -> None:
    """A value that is gone without a recorded erasure."""
    await lab.edit(FULL_SEQ, f"{column} = NULL")
    report = await lab.report()
    expected = "projection_mismatch" if column in PROJECTIONS else "unrecorded_erasure"
    assert report.status == "broken"
    assert seqs(report.breaks) == [FULL_SEQ]
    assert expected in kinds_at(report, FULL_SEQ)


@pytest.mark.parametrize("column", NULLABLE)
async def test_a_column_filled_in_shows(lab: Lab, column: str) -> None:
    """A value where the event had none."""
    if (await lab.rows())[SPARSE_SEQ][column] is not None:
        await lab.edit(SPARSE_SEQ, f"{column} = NULL")  # this one every event has: take another's instead
        value = f"(SELECT {column} FROM audit.entry AS o WHERE o.log_id = $1 AND o.seq = {FULL_SEQ})"
    else:
        value = VALUES[(await column_types(lab))[column]]
    await lab.edit(SPARSE_SEQ, f"{column} = {value}")
    report = await lab.report()
    assert report.status == "broken"
    assert report.breaks[0].seq == SPARSE_SEQ
    assert VERDICTS[column] in kinds_at(report, SPARSE_SEQ)
    assert seqs(report.breaks) == [SPARSE_SEQ]


@pytest.mark.parametrize("column", HEADER)
async def test_a_header_column_without_its_value_shows(lab: Lab, column: str) -> None:
    """Whoever drops NOT NULL gets a verdict, not a verifier that falls over."""
    await lab.execute(f"ALTER TABLE audit.entry ALTER COLUMN {column} DROP NOT NULL")
    await lab.edit(FULL_SEQ, f"{column} = NULL")
    report = await lab.report()
    assert report.status == "broken"
    receipt = {"projection_mismatch"} if column in {"prev_hash", "hash", "epoch", "recorded_at"} else set[str]()
    assert kinds_at(report, FULL_SEQ) == {"header_mismatch"} | receipt
    assert seqs(report.breaks) == [FULL_SEQ]
    assert report.root is None


@pytest.mark.parametrize("column", ["recorded_at", "occurred_at"])
@pytest.mark.parametrize("time", ["4000-01-01 BC", "200000-01-01", "infinity", "-infinity"])
async def test_a_time_beyond_the_calendar_shows(lab: Lab, column: str, time: str) -> None:
    """PostgreSQL's calendar is longer than Python's: a row that cannot be read is a break at its seq."""
    await lab.execute("ALTER TABLE audit.entry DROP CONSTRAINT entry_times")
    await lab.edit(FULL_SEQ, f"{column} = '{time}'")
    report = await lab.report()
    assert report.status == "broken"
    assert report.breaks[0].seq == FULL_SEQ
    assert set(seqs(report.breaks)) <= {FULL_SEQ, FULL_SEQ + 1, SIZE - 1}


@pytest.mark.parametrize("time", ["4000-01-01 BC", "200000-01-01"])
async def test_a_time_beyond_the_calendar_shows_though_it_is_hashed(lab: Lab, time: str) -> None:
    """The header is what its hash says, and still names a time nobody can read."""
    await lab.execute("ALTER TABLE audit.entry DROP CONSTRAINT entry_times")
    row = (await lab.rows())[-1]
    at_us = await lab.admin.fetchval(f"SELECT (extract(epoch FROM timestamptz '{time}') * 1000000)::bigint")
    header = chain.header_bytes(lab.origin, SIZE - 1, at_us, row["kind"], row["prev_hash"], row["body_hash"])
    await lab.edit(SIZE - 1, f"recorded_at = '{time}', hash = $3", chain.entry_hash(header))
    for depth in ("chain", "all"):
        report = await lab.report(depth=depth)
        assert (SIZE - 1, "header_mismatch") in [(item.seq, item.kind) for item in report.breaks]


async def test_a_byte_moved_between_hashes_shows(lab: Lab) -> None:
    """Put together, the hashes are the same bytes; each by itself is not."""
    await lab.execute("ALTER TABLE audit.entry DROP CONSTRAINT entry_hashes")
    await lab.edit(FULL_SEQ, "prev_hash = substr(prev_hash, 1, 31), body_hash = substr(prev_hash, 32) || body_hash")
    report = await lab.report(depth="chain")
    assert [(item.seq, item.kind) for item in report.breaks] == [
        (FULL_SEQ, "header_mismatch"), (FULL_SEQ, "link_broken"), (FULL_SEQ, "body_mismatch"), (SIZE - 1, "root_mismatch"),
    ]  # fmt: skip


@pytest.mark.parametrize("column", VERDICTS)
async def test_the_depth_chain_finds_what_is_of_the_chain(lab: Lab, column: str) -> None:
    """Header, link and body; disclosures and query columns are what it does not look at."""
    change = CHANGES[(await column_types(lab))[column]].format(column)
    await lab.edit(FULL_SEQ, f"{column} = {change}")
    report = await lab.report(depth="chain")
    if VERDICTS[column] in {"disclosure_mismatch", "projection_mismatch"}:
        assert (report.status, report.breaks) == ("ok", [])
    else:
        assert report.status == "broken"
        assert VERDICTS[column] in kinds_at(report, FULL_SEQ)
    assert CONTENTS in report.not_checked


# --- rows


DELETE = "DELETE FROM audit.entry WHERE log_id = $1 AND seq = $2"


@pytest.mark.parametrize(("seq", "kind"), [(0, "gap"), (5, "gap"), (SIZE - 1, "truncated")])
async def test_a_deleted_row_shows(lab: Lab, seq: int, kind: str) -> None:
    """At the start, in the middle, at the end with the head left as it is."""
    await lab.execute(DELETE, lab.log_id, seq)
    report = await lab.report()
    assert report.status == "broken"
    assert [(item.seq, item.kind) for item in report.breaks] == [(seq, kind)]
    assert report.root is None
    assert any(item.startswith("root:") for item in report.not_checked)


@pytest.mark.parametrize("left", [0, 1, SIZE // 2])
async def test_a_cut_tail_shows(lab: Lab, left: int) -> None:
    """The head says how many there must be."""
    await lab.execute("DELETE FROM audit.entry WHERE log_id = $1 AND seq >= $2", lab.log_id, left)
    report = await lab.report()
    assert report.status == "broken"
    assert [(item.seq, item.kind, item.expected) for item in report.breaks] == [(left, "truncated", SIZE)]


async def copy_row(lab: Lab, from_log: int, from_seq: int, to_seq: int) -> None:
    """Insert a copy of a row of any log into the log, at `to_seq`."""
    await lab.execute(
        "CREATE TEMP TABLE forged AS SELECT * FROM audit.entry WHERE log_id = $1 AND seq = $2", from_log, from_seq
    )
    await lab.execute("UPDATE forged SET log_id = $1, seq = $2", lab.log_id, to_seq)
    await lab.execute("INSERT INTO audit.entry SELECT * FROM forged")
    await lab.execute("DROP TABLE forged")


@pytest.mark.parametrize("seq", [-1, -(2**62), SIZE, SIZE + 5, 2**62])
async def test_a_row_outside_the_log_shows(lab: Lab, seq: int) -> None:
    """Readers would be shown it, so it counts though no entry of the log is touched."""
    await copy_row(lab, lab.log_id, 5, seq)
    report = await lab.report()
    assert report.status == "broken"
    assert kinds_at(report, min(seq, SIZE)) == {"head_mismatch"}


async def test_a_forged_row_between_others_shows(lab: Lab) -> None:
    """Made room for by moving those after it: each of them is no longer what its header says."""
    await lab.execute("UPDATE audit.entry SET seq = seq + 100 WHERE log_id = $1 AND seq >= 5", lab.log_id)
    await lab.execute("UPDATE audit.entry SET seq = seq - 99 WHERE log_id = $1 AND seq >= 100", lab.log_id)
    await copy_row(lab, lab.log_id, 2, 5)
    report = await lab.report()
    assert report.status == "broken"
    assert report.breaks[0].seq == 5
    assert set(range(5, SIZE)) <= set(seqs(report.breaks))
    assert kinds_at(report, SIZE) == {"head_mismatch"}


@pytest.mark.parametrize("slice_entries", [1, 5, 6, 7, 1000])
@pytest.mark.parametrize("copies", [1, 3])
async def test_a_duplicate_seq_shows(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, slice_entries: int, copies: int
) -> None:
    """Also where a slice of the reading ends between the two."""
    monkeypatch.setattr(verifying, "SLICE_ENTRIES", slice_entries)
    await lab.execute("ALTER TABLE audit.entry DROP CONSTRAINT entry_pkey")
    for _ in range(copies):
        await copy_row(lab, lab.log_id, 5, 5)
    report = await lab.report()
    assert report.status == "broken"
    assert kinds_at(report, 5) == {"duplicate"}
    assert seqs(report.breaks) == [5]


async def test_two_swapped_rows_show(lab: Lab) -> None:
    """The seq is in the header."""
    await lab.execute(
        "UPDATE audit.entry SET seq = CASE seq WHEN 4 THEN -7 ELSE -4 END WHERE log_id = $1 AND seq IN (4, 7)",
        lab.log_id,
    )
    await lab.execute("UPDATE audit.entry SET seq = -seq WHERE log_id = $1 AND seq < 0", lab.log_id)
    report = await lab.report()
    assert report.status == "broken"
    assert report.breaks[0].seq == 4
    assert kinds_at(report, 4) >= {"header_mismatch", "link_broken"}
    assert kinds_at(report, 7) >= {"header_mismatch", "link_broken"}


async def test_a_row_of_another_tenant_shows(lab: Lab) -> None:
    """The origin is in the header: a genuine row of another log in the place of one's own."""
    await lab.execute(DELETE, lab.log_id, 5)
    await copy_row(lab, lab.other.log_id, 5, 5)
    report = await lab.report()
    assert report.status == "broken"
    assert report.breaks[0].seq == 5
    assert kinds_at(report, 5) == {"header_mismatch", "link_broken", "projection_mismatch"}


# --- the head row


HEADS = {
    "service_name": ("service_name || 'x'", 0, "header_mismatch"),
    "log_key": ("translate(log_key, '0123456789abcdef', '123456789abcdef0')", 0, "header_mismatch"),
    "epoch": ("epoch + 1", SIZE - 1, "head_mismatch"),
    "size": ("size + 1", SIZE, "truncated"),
    "last_hash": ("set_bit(last_hash, 7, 1 - get_bit(last_hash, 7))", SIZE - 1, "head_mismatch"),
    "last_recorded_at": ("last_recorded_at + interval '1 microsecond'", SIZE - 1, "head_mismatch"),
    "frontier": ("set_bit(frontier, 7, 1 - get_bit(frontier, 7))", SIZE - 1, "root_mismatch"),
    "log_id": ("-1", 0, "head_mismatch"),
    "pruned_before": ("1", 0, "unrecorded_prune"),
}


async def test_every_column_of_the_head_has_a_verdict(lab: Lab) -> None:
    """From the catalogue, so that a new one is not forgotten."""
    rows = await lab.admin.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'audit.log'::regclass AND attnum > 0 AND NOT attisdropped"
    )
    assert set(HEADS) == {row["attname"] for row in rows}


@pytest.mark.parametrize("column", HEADS)
async def test_an_edited_head_shows(lab: Lab, column: str) -> None:
    """Each column of it."""
    change, seq, kind = HEADS[column]
    await lab.execute("ALTER TABLE audit.log DROP CONSTRAINT log_frontier")
    await lab.execute(f"UPDATE audit.log SET {column} = {change} WHERE log_id = $1", lab.log_id)
    report = await lab.report()
    assert report.status == "broken"
    assert report.breaks[0].seq == seq
    assert kind in kinds_at(report, seq)


async def test_a_head_that_says_less_than_there_is_shows(lab: Lab) -> None:
    """The entries beyond it are there for readers."""
    await lab.execute("ALTER TABLE audit.log DROP CONSTRAINT log_frontier")
    await lab.execute("UPDATE audit.log SET size = size - 1 WHERE log_id = $1", lab.log_id)
    report = await lab.report()
    assert report.status == "broken"
    assert kinds_at(report, SIZE - 1) == {"head_mismatch", "projection_mismatch"}
    assert kinds_at(report, SIZE - 2) == {"head_mismatch", "root_mismatch"}


async def test_a_deleted_head_shows(lab: Lab) -> None:
    """Without it nothing can be checked, which is never ok."""
    await lab.execute("DELETE FROM audit.log WHERE log_id = $1", lab.log_id)
    report = await lab.report()
    assert report.status == "broken"
    assert [(item.seq, item.kind) for item in report.breaks] == [(0, "head_mismatch")]
    assert report.not_checked


@pytest.mark.parametrize("time", ["4000-01-01 BC", "200000-01-01", "infinity", "-infinity"])
async def test_a_head_beyond_the_calendar_shows(lab: Lab, time: str) -> None:
    """Nor does the verifier fall over a head row."""
    await lab.execute(f"UPDATE audit.log SET last_recorded_at = '{time}' WHERE log_id = $1", lab.log_id)
    report = await lab.report()
    assert report.status == "broken"
    assert {item.kind for item in report.breaks} == {"head_mismatch"}


@pytest.mark.parametrize("frontier", ["''", "last_hash || last_hash || last_hash", "substr(frontier, 1, 63)"])
async def test_a_frontier_of_another_length_shows(lab: Lab, frontier: str) -> None:
    """A frontier that is none of this size gives a verdict as well."""
    await lab.execute("ALTER TABLE audit.log DROP CONSTRAINT log_frontier")
    await lab.execute(f"UPDATE audit.log SET frontier = {frontier} WHERE log_id = $1", lab.log_id)
    report = await lab.report()
    assert report.status == "broken"
    assert [(item.seq, item.kind, item.found) for item in report.breaks] == [(SIZE - 1, "root_mismatch", None)]


# --- what only a checkpoint outside the database shows


async def test_a_cut_tail_with_its_head_reset_is_ok_but_for_a_checkpoint(lab: Lab) -> None:
    """Not detectable from inside: the database then is byte for byte what it was at that size. Only something kept elsewhere,
    that says the log was longer, can tell; so the report names what it did not check."""
    hashes = [row["hash"] for row in await lab.rows()]
    await lab.execute("DELETE FROM audit.entry WHERE log_id = $1 AND seq >= 9", lab.log_id)
    await lab.execute("DELETE FROM audit.receipt WHERE log_id = $1 AND seq >= 9", lab.log_id)
    await lab.set_head(hashes[:9])
    report = await lab.report()
    assert (report.status, report.count, report.breaks) == ("ok", 9, [])
    assert report.not_checked == [CHECKPOINT]
    assert report.as_json()["checkpoint"] == {"status": "none", "detail": None, "checkpoints": []}


async def test_a_full_rehash_by_the_owner_is_ok_but_for_a_checkpoint(lab: Lab) -> None:
    """Not detectable from inside: who can write every row can make every hash follow from what he wrote. Only an earlier root
    kept elsewhere can tell; so the report names what it did not check."""
    before = await lab.report()
    await lab.edit(FULL_SEQ, "body = replace(body, 'user.updated', 'user.ignored'), action = 'user.ignored'")
    assert (await lab.report()).status == "broken"
    await lab.rehash(FULL_SEQ)
    report = await lab.report()
    assert (report.status, report.count, report.breaks) == ("ok", SIZE, [])
    assert report.not_checked == [CHECKPOINT]
    assert report.root != before.root


async def test_a_time_set_back_shows_though_everything_is_rehashed(lab: Lab) -> None:
    """Back-dating by the owner: the order of times is checked beside the hashes."""
    await lab.edit(FULL_SEQ, "recorded_at = recorded_at - interval '1 hour'")
    await lab.rehash(FULL_SEQ)
    report = await lab.report()
    assert report.status == "broken"
    assert [(item.seq, item.kind) for item in report.breaks] == [(FULL_SEQ, "time_backwards")]


ODD_BODIES = {
    "not JSON": "{",
    "not an object": "[]",
    "of another version": '{"v":2}',
    "with an id that is no text": '{"id":7,"occurred_at":"yesterday","v":1}',
    "with odd commitments": '{"sd":{"actor":7,"ip":{},"unheard":"00"},"v":1}',
    "with commitments that are no object": '{"sd":[],"v":1}',
}


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES.keys())
async def test_a_sealed_body_of_another_shape_is_never_ok(lab: Lab, body: str) -> None:
    """Sealed by whoever can re-hash: the verifier answers, and does not call what it could not check ok."""
    await lab.edit(SPARSE_SEQ, "body = $3", body)
    await lab.rehash(SPARSE_SEQ)
    report = await lab.report()
    assert report.status in {"broken", "incomplete"}
    named = [item for item in report.not_checked if item.startswith(f"seq {SPARSE_SEQ}:")]
    assert named or seqs(report.breaks) == [SPARSE_SEQ]


async def test_a_committed_disclosure_that_is_not_json_is_never_ok(lab: Lab) -> None:
    """The commitment holds, the value cannot be read."""
    await lab.edit(SPARSE_SEQ, "d_text = $3", stored := bytes(32) + b"{")
    digest = disclosure_hash("text", stored).hex()
    await lab.edit(SPARSE_SEQ, "body = left(body, -1) || $3", f',"sd":{{"text":"{digest}"}}}}')
    await lab.rehash(SPARSE_SEQ)
    report = await lab.report()
    assert report.status == "incomplete"
    assert f"seq {SPARSE_SEQ}: the disclosure text is not JSON" in report.not_checked


# --- many breaks, parts of a log


async def test_every_break_is_listed(lab: Lab) -> None:
    """Three rows, three breaks; not only the first."""
    for seq in (2, 6, 9):
        await lab.edit(seq, "body = body || ' '")
    report = await lab.report()
    assert [(item.seq, item.kind) for item in report.breaks] == [(seq, "body_mismatch") for seq in (2, 6, 9)]
    assert report.breaks_total == 3


async def test_the_list_of_breaks_is_capped_and_counted(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ruined log does not fill the memory; the total stays true."""
    monkeypatch.setattr(checker, "BREAKS_LIMIT", 5)
    await lab.execute("UPDATE audit.entry SET body = body || ' ' WHERE log_id = $1", lab.log_id)
    report = await lab.report()
    assert seqs(report.breaks) == [0, 1, 2, 3, 4]
    assert report.breaks_total == SIZE


@pytest.mark.parametrize(
    ("from_seq", "to_seq", "status"),
    [
        (0, 6, "ok"),
        (6, 7, "broken"),
        (5, 7, "broken"),
        (7, SIZE, "ok"),
        (0, SIZE, "broken"),
        (6, 6, "ok"),
        (SIZE, SIZE, "ok"),
    ],
)
async def test_a_part_is_judged_by_its_own_entries(lab: Lab, from_seq: int, to_seq: int, status: str) -> None:
    """Half-open: the end is not in it."""
    await lab.edit(6, "body = body || ' '")
    report = await lab.report(from_seq=from_seq, to_seq=to_seq)
    assert (report.status, report.from_seq, report.to_seq, report.count) == (
        status,
        from_seq,
        to_seq,
        to_seq - from_seq,
    )
    whole = (from_seq, to_seq) == (0, SIZE)
    assert (report.root is not None) is whole
    assert (report.not_checked == [CHECKPOINT]) is whole


async def test_a_part_is_linked_to_the_entry_before_it(lab: Lab) -> None:
    """Its hash and its time; and where that entry is gone, the link is not called checked."""
    await lab.edit(6, "hash = set_bit(hash, 0, 1 - get_bit(hash, 0))")
    report = await lab.report(from_seq=7)
    assert [(item.seq, item.kind) for item in report.breaks] == [(7, "link_broken")]
    await lab.restore()
    await lab.edit(6, "recorded_at = recorded_at + interval '1 hour'")
    report = await lab.report(from_seq=7)
    assert [(item.seq, item.kind) for item in report.breaks] == [(7, "time_backwards")]
    await lab.restore()
    await lab.execute(DELETE, lab.log_id, 6)
    report = await lab.report(from_seq=7)
    assert (report.status, report.breaks) == ("incomplete", [])
    assert report.not_checked[0] == "seq 7: its link, because the entry before it is not there"


@pytest.mark.parametrize(("from_seq", "to_seq"), [(-1, 3), (4, 3), (0, SIZE + 1), (SIZE + 1, SIZE + 1)])
async def test_a_part_outside_the_log_is_refused(lab: Lab, from_seq: int, to_seq: int) -> None:
    """Not answered with an empty ok."""
    with pytest.raises(InvalidQueryError, match=f"the log has {SIZE} entries"):
        await lab.report(from_seq=from_seq, to_seq=to_seq)
