"""Checkpoints kept outside: what nothing inside the database could show, each named."""

import json

import pytest

from audit_service.core import control
from audit_service.core.merkle import Frontier
from audit_service.core.vkey import Signer, VerifierKey
from audit_service.errors import InvalidQueryError
from audit_service.verify import Report
from tests.support.forgotten import Forgetter, act, succession
from tests.support.tampering import SIZE, Lab, report_of

MIDDLE = 7


@pytest.fixture
def forget(lab: Lab) -> Forgetter:
    """Signs for the log."""
    return Forgetter(lab.admin, lab.log_id, lab.origin)


@pytest.fixture
def trusted(forget: Forgetter) -> list[VerifierKey]:
    """The key of the log."""
    return [forget.signer.verifier()]


async def signed(lab: Lab, forget: Forgetter, size: int) -> str:
    """The checkpoint of the log as it is now, at a size."""
    tree = Frontier()
    tree.extend([row["hash"] for row in (await lab.rows())[:size]])
    return await forget.checkpoint(size, tree.root())


def verdicts(report: Report) -> list[tuple[int, str]]:
    """Size and status of each checkpoint."""
    return [(one.checkpoint.size, one.status) for one in report.checkpoints]


async def cut_and_reset(lab: Lab, size: int) -> None:
    """A tail cut off by somebody who resets the head: what is left is a shorter log that is true."""
    hashes = [row["hash"] for row in await lab.rows()]
    for table in ("entry", "receipt"):
        await lab.execute(f"DELETE FROM audit.{table} WHERE log_id = $1 AND seq >= $2", lab.log_id, size)
    await lab.set_head(hashes[:size])


async def test_a_log_is_consistent_with_its_checkpoints(
    lab: Lab, forget: Forgetter, trusted: list[VerifierKey]
) -> None:
    """At every size; given in any order, and once or twice."""
    notes = [await signed(lab, forget, size) for size in (SIZE, 0, 1, MIDDLE, SIZE - 1)]
    for depth in ("chain", "all"):
        report = await lab.report(checkpoints=[*notes, notes[0]], trusted=trusted, depth=depth)
        assert (report.status, report.breaks) == ("ok", [])
        assert verdicts(report) == [(size, "consistent") for size in (0, 1, MIDDLE, SIZE - 1, SIZE, SIZE)]
        assert report.as_json()["checkpoint"]["status"] == "consistent"  # type: ignore[index] # JSON
        assert not any(item.startswith("checkpoint") for item in report.not_checked)


async def test_a_cut_tail_with_its_head_reset_shows(lab: Lab, forget: Forgetter, trusted: list[VerifierKey]) -> None:
    note = await signed(lab, forget, SIZE)
    await cut_and_reset(lab, 9)
    report = await lab.report(checkpoints=[note], trusted=trusted)
    assert [(item.seq, item.kind, item.expected, item.found) for item in report.breaks] == [(9, "truncated", SIZE, 9)]
    assert verdicts(report) == [(SIZE, "inconsistent")]
    assert report.checkpoints[0].detail.startswith("rollback: the log has 9 entries")


async def test_a_tail_cut_at_any_place_shows_against_every_larger_checkpoint_and_against_no_other(
    lab: Lab, forget: Forgetter, trusted: list[VerifierKey]
) -> None:
    notes = [await signed(lab, forget, size) for size in range(SIZE + 1)]
    for cut in reversed(range(SIZE)):
        await cut_and_reset(lab, cut)
        for size, note in enumerate(notes):
            report = await report_of(lab.pools, lab.log_id, checkpoints=[note], trusted=trusted)
            found = [(item.seq, item.kind, item.expected, item.found) for item in report.breaks]
            shows = size > cut
            assert found == ([(cut, "truncated", size, cut)] if shows else []), (cut, size)
            assert verdicts(report) == [(size, "inconsistent" if shows else "consistent")]
            assert report.status == ("broken" if shows else "ok")


async def test_a_rewrite_of_equal_length_shows(lab: Lab, forget: Forgetter, trusted: list[VerifierKey]) -> None:
    """Where: after what an older checkpoint still holds for."""
    notes = [await signed(lab, forget, 4), await signed(lab, forget, SIZE)]
    await lab.edit(MIDDLE, "recorded_at = recorded_at + interval '1 microsecond'")
    await lab.rehash(MIDDLE)
    report = await lab.report(checkpoints=notes, trusted=trusted)
    assert [(item.seq, item.kind) for item in report.breaks if item.kind == "root_mismatch"] == [
        (SIZE - 1, "root_mismatch")
    ]
    assert verdicts(report) == [(4, "consistent"), (SIZE, "inconsistent")]
    assert (
        report.checkpoints[1].detail
        == "rewrite of equal length: as many entries as were signed, and others from seq 4 on"
    )


async def test_an_older_backup_gone_on_with_shows(lab: Lab, forget: Forgetter, trusted: list[VerifierKey]) -> None:
    """As long as what was lost, or longer: the root at the signed size is another."""
    note = await signed(lab, forget, SIZE - 1)
    await cut_and_reset(lab, 9)
    for number in range(5):
        await lab.log.accept(lab.pools, {"action": "user.login", "id": f"new-{number}"})
    report = await lab.report(checkpoints=[note], trusted=trusted)
    assert [(item.seq, item.kind) for item in report.breaks] == [(SIZE - 2, "root_mismatch")]
    assert "an older backup restored and gone on with" in report.checkpoints[0].detail
    await lab.execute("UPDATE audit.log SET epoch = 2 WHERE log_id = $1", lab.log_id)
    tree = Frontier()
    tree.extend([row["hash"] for row in await lab.rows()])
    resumed = control.resume(act(), checkpoint=note, size=14, root=tree.root(), lost=(9, SIZE))
    await forget.append(resumed)
    report = await lab.report(checkpoints=[note], trusted=trusted)
    assert verdicts(report) == [(SIZE - 1, "inconsistent")]
    assert report.checkpoints[0].detail.endswith("(the resume entry at seq 14 says that [9, 12) was lost)")


async def test_what_nobody_known_signed_says_nothing(lab: Lab, forget: Forgetter, trusted: list[VerifierKey]) -> None:
    """Never ok: it was asked for and could not be told."""
    note = await signed(lab, forget, SIZE)
    stranger = Signer.from_seed(lab.origin, bytes(32))
    other = Forgetter(lab.admin, lab.log_id, lab.origin.replace(lab.log.log.log_key, "0" * 32))
    head, signature = note.rsplit(" ", 1)
    false = f"{head} {signature[:20]}{'A' if signature[20] != 'A' else 'B'}{signature[21:]}"
    for text, keys, detail in (
        (note, [], "no key that is known to be the log's has signed it"),
        (note, [stranger.verifier()], "no key that is known to be the log's has signed it"),
        (false, trusted, "its signature is false"),
        (await other.checkpoint(SIZE, bytes(32)), trusted, "it is another log's"),
    ):
        report = await lab.report(checkpoints=[text], trusted=keys)
        assert (report.status, report.breaks, verdicts(report)) == ("incomplete", [], [(SIZE, "none")])
        assert report.checkpoints[0].detail == detail


async def test_a_checkpoint_beyond_what_was_read_is_not_ok(
    lab: Lab, forget: Forgetter, trusted: list[VerifierKey]
) -> None:
    """A part of the log, and a pruned log, have no root at every size."""
    notes = [await signed(lab, forget, 3), await signed(lab, forget, SIZE)]
    report = await lab.report(checkpoints=notes, trusted=trusted, to_seq=9)
    assert (report.status, verdicts(report)) == ("incomplete", [(3, "consistent"), (SIZE, "none")])
    await forget.prune(4)
    report = await lab.report(checkpoints=notes, trusted=trusted)
    assert (report.status, verdicts(report)) == ("incomplete", [(3, "none"), (SIZE, "consistent")])


@pytest.mark.parametrize("text", ["", "x", "a\n1\nb\n\n— a AAAA\n"])
async def test_a_note_that_is_no_checkpoint_is_refused(lab: Lab, text: str) -> None:
    with pytest.raises(InvalidQueryError, match="checkpoint cannot be read"):
        await lab.report(checkpoints=[text])


# --- keys


@pytest.mark.parametrize(("event", "size", "status"), [
    ("succeeded", SIZE + 1, "consistent"), ("revoked", SIZE + 1, "none"), ("succeeded", SIZE, "consistent"),
])  # fmt: skip
async def test_a_succession_is_followed(
    lab: Lab, forget: Forgetter, trusted: list[VerifierKey], event: str, size: int, status: str
) -> None:
    """From the pinned key to the next; but a key that was revoked appoints nobody."""
    new = Signer.from_seed(lab.origin, b"n" * 32)
    await forget.append(succession(lab.origin, event, forget.signer, new, MIDDLE))
    tree = Frontier()
    tree.extend([row["hash"] for row in (await lab.rows())[:size]])
    note = await forget.checkpoint(size, tree.root(), new)
    report = await lab.report(checkpoints=[note], trusted=trusted)
    assert verdicts(report) == [(size, status)]


@pytest.mark.parametrize(("event", "status"), [("succeeded", "consistent"), ("revoked", "none")])
async def test_a_succession_that_was_pruned_is_followed_by_the_prune_entry(
    lab: Lab, forget: Forgetter, trusted: list[VerifierKey], event: str, status: str
) -> None:
    new = Signer.from_seed(lab.origin, b"n" * 32)
    entry = succession(lab.origin, event, forget.signer, new, SIZE)
    cut = await forget.append(entry) + 1
    await forget.prune(cut, delete=False, successions=[{**json.loads(entry.body)["details"], "epoch": 1}])
    rows = await lab.rows()
    tree = Frontier()
    tree.extend([row["hash"] for row in rows])
    note = await forget.checkpoint(len(rows), tree.root(), new)
    await lab.admin.execute("DELETE FROM audit.entry WHERE log_id = $1 AND seq < $2", lab.log_id, cut)
    report = await lab.report(checkpoints=[note], trusted=trusted)
    assert verdicts(report) == [(len(rows), status)]


async def test_a_revoked_key_counts_up_to_its_end(lab: Lab, forget: Forgetter, trusted: list[VerifierKey]) -> None:
    notes = [await signed(lab, forget, size) for size in (MIDDLE, SIZE)]
    new = Signer.from_seed(lab.origin, b"n" * 32)
    await forget.append(succession(lab.origin, "revoked", forget.signer, new, MIDDLE))
    for keys in (trusted, [new.verifier()]):
        report = await lab.report(checkpoints=notes, trusted=keys)
        assert verdicts(report) == [(MIDDLE, "consistent"), (SIZE, "none")]


async def test_a_succeeded_key_counts_up_to_its_succession_for_who_pinned_the_next(
    lab: Lab, forget: Forgetter, trusted: list[VerifierKey]
) -> None:
    """Behind it every lawful checkpoint has the new key's signature; who pinned the old one hears of no end."""
    notes = [await signed(lab, forget, size) for size in (MIDDLE, SIZE)]
    new = Signer.from_seed(lab.origin, b"n" * 32)
    await forget.append(succession(lab.origin, "succeeded", forget.signer, new, MIDDLE))
    report = await lab.report(checkpoints=notes, trusted=[new.verifier()])
    assert verdicts(report) == [(MIDDLE, "consistent"), (SIZE, "none")]
    assert report.checkpoints[1].detail.startswith("the key that signed it was revoked or succeeded before it")
    report = await lab.report(checkpoints=notes, trusted=trusted)
    assert verdicts(report) == [(MIDDLE, "consistent"), (SIZE, "consistent")]


async def test_what_a_revoked_key_signed_later_has_a_verdict_of_its_own(
    lab: Lab, forget: Forgetter, trusted: list[VerifierKey]
) -> None:
    """It is not the word for a stranger's signature: who reads it has to look for a stolen key."""
    note = await signed(lab, forget, SIZE)
    new = Signer.from_seed(lab.origin, b"n" * 32)
    await forget.append(succession(lab.origin, "revoked", forget.signer, new, MIDDLE))
    report = await lab.report(checkpoints=[note], trusted=trusted)
    assert "revoked" in report.checkpoints[0].detail


@pytest.mark.parametrize("first", ["revoked", "succeeded"])
async def test_whom_a_revoked_key_appoints_counts_no_longer_than_itself(
    lab: Lab, forget: Forgetter, first: str
) -> None:
    """Whoever stole it could sign a succession to a key of theirs; before or after the revocation stands in the log."""
    new, thief = Signer.from_seed(lab.origin, b"n" * 32), Signer.from_seed(lab.origin, b"t" * 32)
    entries = {
        "revoked": succession(lab.origin, "revoked", forget.signer, new, MIDDLE),
        "succeeded": succession(lab.origin, "succeeded", forget.signer, thief, MIDDLE - 1),
    }
    await forget.append(entries.pop(first))
    for entry in entries.values():
        await forget.append(entry)
    notes = []
    for size in (MIDDLE, SIZE + 2):
        tree = Frontier()
        tree.extend([row["hash"] for row in (await lab.rows())[:size]])
        notes.append(await forget.checkpoint(size, tree.root(), thief))
    for key in (new, forget.signer):
        report = await lab.report(checkpoints=notes, trusted=[key.verifier()])
        assert verdicts(report) == [(MIDDLE, "consistent"), (SIZE + 2, "none")]


async def test_a_succession_that_its_keys_did_not_sign_is_not_ok(lab: Lab, forget: Forgetter) -> None:
    thief, new = Signer.from_seed(lab.origin, b"t" * 32), Signer.from_seed(lab.origin, b"n" * 32)
    await forget.append(succession(lab.origin, "succeeded", forget.signer, new, MIDDLE, signed_by=(thief, new)))
    report = await lab.report()
    assert report.status == "incomplete"
    assert f"seq {SIZE}: the signer entry is not signed by its two keys" in report.not_checked
