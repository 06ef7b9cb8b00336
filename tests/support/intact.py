r"""Whether a log is intact, re-derived from the raw rows: DESIGN 3.1 and 3.2 transcribed once more, with hashlib only.

Nothing here comes from the code under test, so an error there cannot hide itself here. Slow and meant to be obvious.
"""

import json
from collections.abc import Collection, Sequence
from hashlib import sha256

import asyncpg

_GROUP_COLUMNS = """
    SELECT a.attname FROM pg_attribute AS a
    WHERE a.attrelid = 'audit.entry'::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attname LIKE 'd\\_%'
"""
_ENTRIES = """
    SELECT *, (extract(epoch FROM recorded_at) * 1000000)::bigint AS at_us
    FROM audit.entry WHERE log_id = $1 ORDER BY seq
"""


async def assert_log_intact(
    connection: asyncpg.Connection, log_id: int, size: int, *, forgotten: Collection[int] = ()
) -> None:
    """The log has exactly `size` entries and every byte of them follows from the format.

    `connection` reads the tables themselves, so it is the owner's. `forgotten`: seqs whose body or disclosures may be gone.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        head = await connection.fetchrow("SELECT * FROM audit.log WHERE log_id = $1", log_id)
        rows = await connection.fetch(_ENTRIES, log_id)
        receipts = await connection.fetch("SELECT * FROM audit.receipt WHERE log_id = $1 AND kept", log_id)
        groups = [row["attname"].removeprefix("d_") for row in await connection.fetch(_GROUP_COLUMNS)]
    assert head is not None, "the head row is gone"
    assert [row["seq"] for row in rows] == list(range(size)), "seq is not dense from 0"
    _assert_chain(head, rows)
    for row in rows:
        _assert_content(row, groups, may_lack=row["seq"] in forgotten)
    _assert_head(head, rows)
    _assert_receipts(rows, receipts, head)


def _assert_chain(head: asyncpg.Record, rows: Sequence[asyncpg.Record]) -> None:
    name = f"{head['service_name']}/t/{head['log_key']}"
    prev = sha256(f"audit-service/genesis/v1\n{name}/1\n".encode()).digest()
    last_us, last_epoch = 0, 1
    for row in rows:
        at = f"at seq {row['seq']}"
        assert row["prev_hash"] == prev, f"broken link {at}"
        assert row["hash"] == sha256(b"\x00" + _header(name, row)).digest(), f"wrong hash {at}"
        assert row["at_us"] >= last_us, f"time runs backwards {at}"
        assert row["epoch"] >= last_epoch, f"the epoch goes backwards {at}"
        prev, last_us, last_epoch = row["hash"], row["at_us"], row["epoch"]


def _header(name: str, row: asyncpg.Record) -> bytes:
    lines = (
        "audit-service/entry/v1",
        f"{name}/{row['epoch']}",
        str(row["seq"]),
        str(row["at_us"]),
        row["kind"],
        row["prev_hash"].hex(),
        row["body_hash"].hex(),
    )
    return "".join(line + "\n" for line in lines).encode()


def _assert_content(row: asyncpg.Record, groups: Sequence[str], *, may_lack: bool) -> None:
    at = f"at seq {row['seq']}"
    if row["body"] is None:
        assert may_lack, f"no body {at}"
        return
    assert row["body_hash"] == sha256(b"audit-service/body/v1\n" + row["body"].encode()).digest(), f"wrong body {at}"
    committed = json.loads(row["body"]).get("sd", {})
    stored = {group: row[f"d_{group}"] for group in groups if row[f"d_{group}"] is not None}
    assert stored.keys() <= committed.keys(), f"a disclosure nobody committed to {at}"
    assert may_lack or stored.keys() == committed.keys(), f"a disclosure is missing {at}"
    for group, salted in stored.items():
        digest = sha256(b"audit-service/disclosure/v1\n" + group.encode() + b"\n" + salted).hexdigest()
        assert digest == committed[group], f"wrong disclosure {group} {at}"
        json.loads(salted[32:])


def _assert_head(head: asyncpg.Record, rows: Sequence[asyncpg.Record]) -> None:
    hashes = [row["hash"] for row in rows]
    assert head["size"] == len(rows), "the head has another size"
    assert head["frontier"] == b"".join(naive_frontier(hashes)), "wrong frontier"
    if rows:
        last = rows[-1]
        found = (head["last_hash"], head["last_recorded_at"], head["epoch"])
        assert found == (last["hash"], last["recorded_at"], last["epoch"]), "the head is not the last entry"


def _assert_receipts(rows: Sequence[asyncpg.Record], receipts: Sequence[asyncpg.Record], head: asyncpg.Record) -> None:
    shared = ("seq", "recorded_at", "epoch", "prev_hash", "hash")
    entries = {row["seq"]: row for row in rows}
    assert sorted(receipt["seq"] for receipt in receipts) == sorted(entries), "receipts and entries are not one to one"
    for receipt in receipts:
        entry = entries[receipt["seq"]]
        where = f"the receipt of seq {receipt['seq']} in log {head['log_id']}"
        assert [receipt[name] for name in shared] == [entry[name] for name in shared], f"{where} is not its entry's"
        assert entry["id"] in {None, receipt["id"]}, f"{where} has another id"


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1 over leaf hashes."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else sha256().digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


def naive_frontier(leaves: Sequence[bytes]) -> list[bytes]:
    """The roots of the perfect subtrees that tile the leaves, largest first."""
    if not leaves:
        return []
    width = 1
    while width * 2 <= len(leaves):
        width *= 2
    return [naive_root(leaves[:width]), *naive_frontier(leaves[width:])]
