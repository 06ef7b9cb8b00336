"""What an append sends comes back as it was, whatever the values hold: columns of text travel joined, and are parted by PostgreSQL."""

import ipaddress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audit_service.core.entry import Projection
from audit_service.store import append
from audit_service.store.append import Candidate, append_entries
from tests.support.appends import RULESET, TestLog, candidate, make_log, owner
from tests.support.postgres import TestDatabase

# What parts, quotes or ends something on the way.
TEXTS = st.text(
    st.sampled_from("\x1d\x1e\x1f\\\"{},\n'$1abNUL é\U0001f600")
    | st.characters(exclude_categories=["Cs"], min_codepoint=1),
    max_size=12,
)
MAYBE = st.none() | TEXTS
ADDRESSES = st.none() | st.ip_addresses()
ROWS = st.lists(
    st.fixed_dictionaries({
        "actor_name": MAYBE,
        "target_id": MAYBE,
        "search": MAYBE,
        "actor_keys": st.none() | st.lists(TEXTS, min_size=1, max_size=3),
        "paths": st.none() | st.lists(TEXTS, min_size=1, max_size=3),
        "ip": ADDRESSES,
        "source_seq": st.none() | st.integers(0, 2**63 - 1),
    }),
    min_size=1,
    max_size=4,
)  # fmt: skip


def candidates(prefix: str, rows: list[dict[str, Any]]) -> list[Candidate]:
    """Events with these projections."""
    made = []
    for number, row in enumerate(rows):
        one = candidate(f"{prefix}:{number}", body=f'{{"v":1,"n":{number}}}')
        projection = Projection(**(one.prepared.projection._asdict() | row))
        made.append(one._replace(prepared=one.prepared._replace(projection=projection)))
    return made


async def stored(log: TestLog, names: list[str]) -> list[dict[str, Any]]:
    """These columns of the log's entries, in order."""
    async with owner(log.database) as connection:
        rows = await connection.fetch(
            f"SELECT {', '.join(names)} FROM audit.entry WHERE log_id = $1 ORDER BY seq", log.log_id
        )
    return [dict(row) for row in rows]


@given(rows=ROWS)
@example(rows=[{"actor_name": ""}])
@example(rows=[{"actor_name": ""}, {"actor_name": None}])
@example(rows=[{"actor_name": None}, {"actor_name": ""}])
@example(rows=[{"actor_name": "NULL", "paths": ["NULL", ""]}])
async def test_every_column_comes_back(module_database: TestDatabase, rows: list[dict[str, Any]]) -> None:
    log, pools = await make_log(module_database), module_database.open()
    try:
        made = candidates("e", rows)
        answers = await append_entries(pools.writes, log.log_id, RULESET, made)
        assert [answer.seq for answer in answers] == list(range(len(rows)))
    finally:
        await pools.dispose()
    names = ["id", "body", *sorted({name for row in rows for name in row})]
    expected = [
        {"id": one.id, "body": one.prepared.body} | {name: row.get(name) for name in names[2:]}
        for one, row in zip(made, rows, strict=True)
    ]
    found = await stored(log, names)
    for row in found:
        if row.get("ip") is not None:
            row["ip"] = ipaddress.ip_address(row["ip"])
    assert found == expected


async def test_without_a_secret_separator_a_value_could_part_itself(
    module_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: who knows the separator moves the values behind his own."""
    log, pools = await make_log(module_database), module_database.open()
    rows = [{"actor_name": "mine\x1e\x1fyours"}, {"actor_name": "theirs"}]
    await append_entries(pools.writes, log.log_id, RULESET, candidates("good", rows))
    monkeypatch.setattr(append, "_TOKEN_BYTES", 0)
    await append_entries(pools.writes, log.log_id, RULESET, candidates("bad", rows))
    await pools.dispose()
    assert [row["actor_name"] for row in await stored(log, ["actor_name"])] == [
        "mine\x1e\x1fyours", "theirs", "mine", "yours",
    ]  # fmt: skip


def test_no_two_calls_part_alike() -> None:
    first, second = (append._arguments(1, RULESET, candidates("x", [{}]))[:2] for _ in range(2))
    assert len({*first, *second}) == 4
