"""The background verification, round by round: what a DBA does is named and stays named, and a state that was touched is not believed."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import CapturingLogger

from audit_service import verifier
from audit_service.errors import UnavailableError
from audit_service.settings import Settings
from audit_service.store.credentials import fetch_installation
from audit_service.store.engine import connected, open_database
from audit_service.verified import VerifiedLog, VerifiedLogs
from audit_service.verifier import Verifier
from tests.support.apps import open_api
from tests.support.tampering import SIZE, Lab

LOW = 3
BELOW = f"entries below seq {SIZE}: found right before, and not read again"


@dataclass(frozen=True, slots=True)
class Watch:
    """A log, a verifier with its files in a folder of its own, and what it logged."""

    lab: Lab
    folder: Path
    states: VerifiedLogs
    logged: CapturingLogger

    @property
    def path(self) -> Path:
        """The state file of the log."""
        return self.folder / "verified" / f"{self.lab.log.log.log_key}.json"

    def state(self) -> VerifiedLog | None:
        """What is believed of the log."""
        return self.states.read(self.lab.log.log.log_key)

    def rewrite(self, **changed: Any) -> None:
        """The state as the verifier itself would write it, with something changed."""
        state = self.state()
        assert state is not None
        self.states.write(self.lab.log.log.log_key, replace(state, **changed))

    async def look(self) -> tuple[str, dict[str, int]]:
        """One round by a verifier that has just started: the status of the log, and the first seq of each kind of break that was logged
        as an error."""
        self.logged.calls.clear()
        settings = Settings(data_dir=self.folder, verify_full_hours=24)
        await Verifier(self.lab.pools, settings).look()
        state = self.state()
        assert state is not None
        key = self.lab.log.log.log_key
        named = [c.kwargs for c in self.logged.calls if c.method_name == "error" and "first_seqs" in c.kwargs]
        return state.last.status, next((one["first_seqs"] for one in named if one["log"] == key), {})

    async def shown(self) -> tuple[Any, dict[str, float]]:
        """`last_verified` of GET /v1/chain, and the figures of /metrics about it."""
        async with open_api(self.lab.log.database, data_dir=self.folder) as api:
            chain = (await api.client.get("/v1/chain")).json()
            lines = (await api.client.get("/metrics")).text.splitlines()
        names = ("audit_verified_", "audit_broken_", "audit_unverified_")
        return chain["last_verified"], {
            name: float(value) for name, value in (line.split() for line in lines if line.startswith(names))
        }


@pytest.fixture
async def watch(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    async with connected(lab.pools.reads) as connection:
        secret = (await fetch_installation(connection)).secret
    logged = CapturingLogger()
    monkeypatch.setattr(verifier, "log", structlog.wrap_logger(logged, processors=[]))
    return Watch(lab, tmp_path, VerifiedLogs(tmp_path, secret), logged)


async def test_a_good_log_is_read_once_and_then_what_was_added(watch: Watch) -> None:
    assert watch.state() is None
    last, figures = await watch.shown()
    assert (last, figures["audit_verified_size"], figures["audit_verified_breaks"]) == (None, 0, 0)
    assert figures["audit_unverified_logs"] == 2  # the service's own, too
    assert "audit_verified_age_seconds" not in figures
    assert await watch.look() == ("ok", {})
    first = watch.state()
    assert first is not None
    assert first.point is not None
    assert (first.point.size, first.full_at) == (SIZE, first.last.at)
    assert watch.path.stat().st_mode & 0o777 == 0o600
    await watch.lab.log.accept(watch.lab.pools, {"action": "x.y"}, {"action": "x.y"})
    assert await watch.look() == ("ok", {})
    second = watch.state()
    assert second is not None
    assert second.point is not None
    assert (second.point.size, second.full_at) == (SIZE + 2, first.full_at)
    read = [c.kwargs["from_seq"] for c in watch.logged.calls if c.kwargs.get("size") == SIZE + 2]
    assert read == [SIZE]
    last, figures = await watch.shown()
    assert (last["size"], last["status"]) == (SIZE + 2, "ok")
    assert last["at"] > last["full_at"]
    assert (figures["audit_broken_logs"], figures["audit_verified_breaks"], figures["audit_unverified_logs"]) == (
        0,
        0,
        0,
    )
    assert 0 <= figures["audit_verified_age_seconds"] <= figures["audit_verified_full_age_seconds"] < 60


async def test_an_edit_of_what_was_added_is_found_by_the_next_round_and_named_in_each(watch: Watch) -> None:
    """Until it is mended: an incremental run from the last good point, or one that comes to no end, makes it no better."""
    await watch.look()
    await watch.lab.log.accept(watch.lab.pools, *({"action": "x.y", "id": f"n{n}"} for n in range(3)))
    await watch.lab.edit(SIZE + 1, "body = replace(body, 'x.y', 'forged')")
    for _ in range(2):
        status, named = await watch.look()
        assert (status, named["body_mismatch"]) == ("broken", SIZE + 1)
    assert "forged" not in str(watch.logged.calls)
    assert "forged" not in watch.path.read_text()
    last, figures = await watch.shown()
    assert (last["size"], last["status"]) == (SIZE + 3, "broken")
    assert figures["audit_broken_logs"] == 1
    assert figures["audit_verified_breaks"] >= 1
    await watch.lab.restore()
    assert await watch.look() == ("ok", {})
    _, figures = await watch.shown()
    assert (figures["audit_broken_logs"], figures["audit_verified_breaks"]) == (0, 0)


@pytest.mark.parametrize("hours", [25, -1])
async def test_an_edit_below_the_point_is_found_by_the_full_run(watch: Watch, hours: int) -> None:
    """And by nothing sooner. A clock that was put back does not put it off."""
    await watch.look()
    await watch.lab.edit(LOW, "body = body || ' '")
    assert await watch.look() == ("ok", {})
    state = watch.state()
    assert state is not None
    assert state.full_at is not None
    watch.rewrite(full_at=state.full_at - timedelta(hours=hours))
    status, named = await watch.look()
    assert (status, named["body_mismatch"]) == ("broken", LOW)


def _edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(path: Path) -> None:
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return edit


@pytest.mark.parametrize("touch", [
    Path.unlink,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"\xff\x00garbage"),
    lambda path: path.write_text("[" * 100_000),
    lambda path: path.write_text("[]"),
    _edited(lambda state: state.pop("mac")),
    _edited(lambda state: state.update(mac=None)),
    _edited(lambda state: state["point"].update(last_us=0)),
    _edited(lambda state: state["last"].update(size=1)),
    _edited(lambda state: state.update(full_at="2999-01-01T00:00:00.000000Z")),
    _edited(lambda state: state.update(log="0" * 32)),
])  # fmt: skip
async def test_a_state_that_was_touched_is_none_and_everything_is_read(watch: Watch, touch: Any) -> None:
    """An edit below the point, which only a run from the beginning finds; the control: with the state as it was, it is not found."""
    await watch.look()
    await watch.lab.edit(LOW, "body = body || ' '")
    assert await watch.look() == ("ok", {})
    touch(watch.path)
    status, named = await watch.look()
    assert (status, named["body_mismatch"]) == ("broken", LOW)
    said = [c.kwargs["event"] for c in watch.logged.calls if c.method_name == "error" and "first_seqs" not in c.kwargs]
    assert len(said) == (touch is not Path.unlink)


async def test_the_state_of_another_log_or_database_is_none(watch: Watch) -> None:
    await watch.look()
    other = watch.lab.other.log.log_key
    watch.path.with_name(f"{other}.json").write_bytes(watch.path.read_bytes())
    assert watch.state() is not None
    assert watch.states.read(other) is None
    assert VerifiedLogs(watch.folder, b"another").read(watch.lab.log.log.log_key) is None


@given(data=st.data())
async def test_no_change_of_the_file_is_believed(built: Lab, tmp_path: Path, data: st.DataObject) -> None:
    states = VerifiedLogs(tmp_path, b"secret")
    key = built.log.log.log_key
    path = tmp_path / "verified" / f"{key}.json"
    if not path.exists():
        await Verifier(built.pools, Settings(data_dir=tmp_path)).look()
        async with connected(built.pools.reads) as connection:
            own = VerifiedLogs(tmp_path, (await fetch_installation(connection)).secret).read(key)
        assert own is not None
        states.write(key, own)
        path.with_suffix(".kept").write_bytes(path.read_bytes())
    kept = path.with_suffix(".kept").read_bytes()
    path.write_bytes(kept)
    expected = states.read(key)
    assert expected is not None
    at = data.draw(st.integers(0, len(kept) - 1))
    path.write_bytes(kept[:at] + data.draw(st.binary(min_size=0, max_size=2)) + kept[at + 1 :])
    assert states.read(key) in (None, expected)


async def test_a_log_that_was_cut_stays_broken_though_what_is_left_is_true(watch: Watch) -> None:
    """The head was reset: only what was known before tells. Until the operator takes that away."""
    await watch.look()
    hashes = [row["hash"] for row in await watch.lab.rows()]
    for table in ("entry", "receipt"):
        await watch.lab.execute(f"DELETE FROM audit.{table} WHERE log_id = $1 AND seq >= 9", watch.lab.log_id)
    await watch.lab.set_head(hashes[:9])
    for _ in range(2):
        assert await watch.look() == ("broken", {"truncated": 9})
    for number in range(SIZE):
        await watch.lab.log.accept(watch.lab.pools, {"action": "x.y", "id": f"new-{number}"})
    assert await watch.look() == ("broken", {"root_mismatch": SIZE - 1})
    watch.path.unlink()
    assert await watch.look() == ("ok", {})


async def test_a_log_that_was_rehashed_as_a_whole_shows(watch: Watch) -> None:
    await watch.look()
    await watch.lab.edit(LOW, "recorded_at = recorded_at + interval '1 microsecond'")
    await watch.lab.rehash(LOW)
    status, named = await watch.look()
    assert (status, "root_mismatch" in named) == ("broken", True)


@pytest.mark.parametrize(
    "column",
    [
        "epoch = 9",
        "last_recorded_at = now()",
        "last_hash = sha256('x')",
        "frontier = set_byte(frontier, 0, get_byte(frontier, 0) # 1)",
    ],
)
async def test_an_edit_of_the_head_shows_though_nothing_was_added(watch: Watch, column: str) -> None:
    await watch.look()
    await watch.lab.execute(f"UPDATE audit.log SET {column} WHERE log_id = $1", watch.lab.log_id)
    status, named = await watch.look()
    assert (status, set(named) <= {"head_mismatch", "root_mismatch"}) == ("broken", True)


async def test_a_log_whose_head_is_gone_is_broken(watch: Watch) -> None:
    await watch.look()
    await watch.lab.execute("DELETE FROM audit.log WHERE log_id = $1", watch.lab.log_id)
    assert await watch.look() == ("broken", {"head_mismatch": 0})


async def test_a_log_that_is_not_listed_any_more_is_broken(watch: Watch) -> None:
    await watch.look()
    state = watch.state()
    assert state is not None
    watch.states.write("f" * 32, state)
    await watch.look()
    gone = watch.states.read("f" * 32)
    assert gone is not None
    assert (gone.last.status, gone.point) == ("broken", state.point)
    assert "f" * 32 in [c.kwargs["log"] for c in watch.logged.calls if c.method_name == "error"]


async def test_a_database_that_is_away_is_said_to_be_and_takes_nothing_back(watch: Watch, tmp_path: Path) -> None:
    await watch.look()
    before = watch.path.read_bytes()
    away = open_database(f"postgresql://audit_serving@/audit?host={tmp_path}", pool_connections=1)
    with pytest.raises(UnavailableError):
        await Verifier(away, Settings(data_dir=watch.folder)).look()
    await away.dispose()
    assert watch.path.read_bytes() == before


async def test_an_incremental_verification_over_http_says_what_it_did_not_read(watch: Watch) -> None:
    async with open_api(watch.lab.log.database, data_dir=watch.folder) as api:
        report = await api.verify(incremental="true")
        assert report["checked"] == {"from_seq": 0, "to_seq": SIZE, "count": SIZE}
        await watch.look()
        whole = await api.verify()
        report = await api.verify(incremental="true")
        # Both verifications before were noted, the first of them ahead of the look.
        assert report["checked"] == {"from_seq": SIZE + 1, "to_seq": SIZE + 2, "count": 1}
        assert (report["status"], whole["status"]) == ("ok", "ok")
        below = BELOW.replace(str(SIZE), str(SIZE + 1))
        assert below in report["not_checked"]
        assert below not in whole["not_checked"]
        await watch.lab.edit(LOW, "body = body || ' '")
        assert (await api.verify(incremental="true"))["status"] == "ok"
        watch.path.unlink()
        assert (await api.verify(incremental="true"))["status"] == "broken"
        await watch.look()
        report = await api.verify(incremental="true")  # of a broken log nothing is right before
        assert (report["status"], report["checked"]["from_seq"]) == ("broken", 0)
        for asked in ("incremental=true&from_seq=1", "incremental=true&to_seq=4", "incremental=maybe"):
            answer = await api.client.get(f"/v1/chain/verify?{asked}")
            assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (400, "incremental")
