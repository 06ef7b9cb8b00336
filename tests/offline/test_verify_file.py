"""The single-file verifier: what holds passes, what does not is found under its name, nothing ends in a traceback."""

import ast
import json
import random
import subprocess
import sys
import zipfile
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
from typer.testing import CliRunner

from audit_service import cli
from audit_service.offline import verify_file
from audit_service.offline.verify_file import CHECKS, Report, verify
from tests.support.bundles import MadeLog, Members, pack
from tests.support.evidence_cases import Case, bad_cases, full_log, good_cases, random_cases, unpacked
from tests.support.evidence_files import policy_cases, proof_cases

PROGRAM = Path(verify_file.__file__)


def judge(case: Case, folder: Path) -> Report:
    """The verifier's report on a case."""
    bundle, policy = folder / "bundle", folder / "policy"
    bundle.write_bytes(case.data)
    if case.policy is not None:
        policy.write_bytes(case.policy)
    return verify(bundle, case.keys, None if case.policy is None else policy, processes=1)


@cache
def named_cases() -> tuple[Case, ...]:
    """Every named case; made once."""
    return (*good_cases(), *bad_cases(), *policy_cases(), *proof_cases())


def test_every_case_gets_its_verdict(tmp_path: Path) -> None:
    """Exactly the checks that must fail do, and the exit code says so."""
    seen = set()
    for case in named_cases():
        report = judge(case, tmp_path)
        assert (case.exit, case.fails) == (report.exit_code(), frozenset(report.failed)), (case.name, report.as_json())
        seen.add(case.name)
    assert len(seen) > 400


def test_what_is_good_has_every_check_made(tmp_path: Path) -> None:
    """Exit 0 means pass or not applicable, with a reason for the latter, and never that something was skipped."""
    for case in good_cases():
        checks = judge(case, tmp_path).checks()
        assert tuple(checks) == CHECKS
        assert {check.verdict for check in checks.values()} <= {"pass", "not_applicable"}, case.name
        assert all(check.reason for check in checks.values() if check.verdict == "not_applicable")
    whole = judge(next(good_cases()), tmp_path).checks()
    assert {name for name, check in whole.items() if check.verdict == "pass"} == set(CHECKS) - {"inclusion", "policy"}


@pytest.mark.parametrize("check", CHECKS)
def test_a_verifier_without_one_check_lets_something_pass(
    check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: for each check some case is held back by it alone, so its absence cannot go unnoticed."""
    held = [case for case in named_cases() if case.fails == {check}]
    fail = verify_file.Findings.fail

    def lenient(self: verify_file.Findings, name: str, reason: str, seq: int | None = None, times: int = 1) -> None:
        if name != check:
            fail(self, name, reason, seq, times)

    monkeypatch.setattr(verify_file.Findings, "fail", lenient)
    passed = [case.name for case in held if judge(case, tmp_path).exit_code() == 0]
    assert passed


def _small(*, filtered: bool = False) -> tuple[Members, str]:
    """The members of a bundle that has everything in few bytes, and the key to pin."""
    log = MadeLog()
    log.event({"action": "a.b", "id": "é", "context": {"ip": "::1"}, "actor": {"id": "u"}})
    log.erase([(0, "ip")])
    return log.bundle(0, 1, chosen=(lambda _: True) if filtered else None), log.vkey


@pytest.mark.parametrize("filtered", [False, True])
def test_one_flipped_bit_in_any_byte_of_any_member_is_found(filtered: bool, tmp_path: Path) -> None:
    """Each byte in turn, a bit of it by a fixed draw; the zip file around it is made anew and fits."""
    members, vkey = _small(filtered=filtered)
    chance, flips = random.Random(5), 0  # noqa: S311
    for name, data in members.items():
        for at in range(len(data)):
            flipped = data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
            report = judge(Case(name, pack(members | {name: flipped}), (vkey,)), tmp_path)
            assert report.exit_code() != 0, (name, at)
            flips += 1
    assert flips == sum(map(len, members.values())) > 2500


def test_a_flipped_bit_of_the_zip_file_is_found_or_changes_no_member(tmp_path: Path) -> None:
    """Whatever passes has the very members; control: most flips do not pass, some harmless ones do."""
    members, vkey = _small()
    chance = random.Random(6)  # noqa: S311
    outcomes = set()
    for deflated in (False, True):
        data = pack(members, deflated=deflated)
        directory = data.index(b"PK\1\2")
        for number in range(800):
            at = chance.randrange(len(data)) if number % 2 else chance.randrange(directory, len(data))
            flipped = data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
            code = judge(Case("zip", flipped, (vkey,)), tmp_path).exit_code()
            assert code != 0 or unpacked(flipped) == members, at
            outcomes.add(code)
    assert outcomes == {0, 1, 2}


def test_random_mutants_are_found(tmp_path: Path) -> None:
    """Mutants of every member, most with a manifest made to fit; the seed stands in the message."""
    seed = random.SystemRandom().randrange(1 << 32)
    for case in random_cases(300, seed):
        assert judge(case, tmp_path).exit_code() != 0, (seed, case.name)


def test_slices_and_processes_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small slices, so that every link and time between them is checked too; then in two processes."""
    unlike = {
        "lines without end",
        "a line without end",
        "zip: longer than it says",
    }  # how much is read before the end shows
    cases = [case for case in named_cases() if len(case.data) < 200_000 and case.name not in unlike]
    whole = {case.name: judge(case, tmp_path).as_json() for case in cases}
    monkeypatch.setattr(verify_file, "_SLICE_BYTES", 700)
    for case in cases:
        assert whole[case.name] == judge(case, tmp_path).as_json(), case.name
    monkeypatch.setattr(verify_file, "_PARALLEL_FROM_BYTES", 0)
    for name in ("range 0 to 28 of None", "body edited", "an erase of another seq"):
        (case,) = [one for one in cases if one.name == name]
        (tmp_path / "parallel").write_bytes(case.data)
        assert whole[name] == verify(tmp_path / "parallel", case.keys, processes=2).as_json()


def test_it_runs_alone_and_in_a_service_less_python(tmp_path: Path) -> None:
    """The file by itself, elsewhere, isolated: exit 0, 1, 2 and no traceback; it imports nothing of ours."""
    program = tmp_path / "check.py"
    program.write_bytes(PROGRAM.read_bytes())
    log = full_log()
    good, bad = tmp_path / "good.zip", tmp_path / "bad.zip"
    good.write_bytes(pack(log.bundle()))
    bad.write_bytes(next(case.data for case in bad_cases() if case.name == "body edited"))
    for arguments, code, words in (
        ([good, "--key", log.vkey], 0, "Everything holds."),
        ([bad, "--key", log.vkey], 1, "first at seq 7"),
        ([good], 2, "no key was pinned"),
        ([tmp_path / "none"], 2, "no such file"),
        ([tmp_path], 2, "no such file"),
        ([program], 2, "not a zip file"),
    ):
        ended = subprocess.run([sys.executable, "-I", program, *arguments], capture_output=True, text=True, check=False)
        assert (code, "") == (ended.returncode, ended.stderr)
        assert words in ended.stdout
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else name.name
        for node in ast.walk(ast.parse(PROGRAM.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    roots = {name.split(".")[0] for name in imported}
    assert roots - set(sys.stdlib_module_names) == {"cryptography"}


def test_the_command_is_the_same_program(tmp_path: Path) -> None:
    log = full_log()
    path = tmp_path / "bundle.zip"
    path.write_bytes(pack(log.bundle(2, 27, chosen=lambda made: made.seq % 3 == 0)))
    ended = CliRunner().invoke(cli.app, ["verify-file", str(path), "--key", log.vkey, "--json"])
    report = json.loads(ended.stdout)
    assert (ended.exit_code, report["status"], report["completeness"]) == (0, "ok", "not proven: filtered")
    assert report["checks"]["inclusion"] == {"verdict": "pass", "reason": None, "first_bad_seq": None, "faults": 0}
    shown = CliRunner().invoke(cli.app, ["verify-file", str(path), "--key", log.vkey])
    assert "inclusion only, completeness not proven" in shown.stdout
    assert CliRunner().invoke(cli.app, ["verify-file", str(path)]).exit_code == 2


def test_what_a_stranger_wrote_does_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(pack(full_log().bundle(chosen=lambda _: True, filters="\x1b[2J\u202e é")))
    assert verify_file.run(path, [full_log().vkey]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed


def test_without_cryptography_the_signature_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    report = judge(next(good_cases()), tmp_path)
    assert report.exit_code() == 2
    assert "not installed" in (report.checks()["checkpoint"].reason or "")
    assert report.checks()["range"].verdict == "pass"


def test_memory_does_not_follow_the_bundle(tmp_path: Path) -> None:
    """Ten times the entries, half of them erased: the peak of a process of its own grows by a few MiB at most."""
    peaks = []
    for count in (2_000, 20_000):
        log = MadeLog()
        for number in range(count):
            log.event({"action": "a.b", "id": str(number), "context": {"ip": "203.0.113.9"}})
        for start in range(0, count // 2, 10_000):
            log.erase([(seq, "ip") for seq in range(start, min(start + 10_000, count // 2))])
        path = tmp_path / f"{count}.zip"
        path.write_bytes(pack(log.bundle(0, count)))
        script = (
            "import resource, runpy, sys; sys.argv[1:] = sys.argv[2:]; "
            f"module = runpy.run_path({str(PROGRAM)!r}); code = module['main'](); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
        )
        command = [sys.executable, "-c", script, "-", path, "--key", log.vkey, "--processes", "1"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout
        peaks.append(int(ended.stderr) * 1024)
        size = path.stat().st_size
    assert size > 10 << 20
    assert peaks[1] - peaks[0] < 24 << 20


def test_a_zip_file_of_more_than_four_gibibytes_is_read_by_its_wide_lengths() -> None:
    """Lengths of 64 bits in the directory and its end record; control: the short ones that disagree are refused."""
    target = BytesIO()
    with zipfile.ZipFile(target, "w") as archive, archive.open("a", "w", force_zip64=True) as member:
        member.write(b"data")
    data = target.getvalue()
    at = data.index(b"PK\1\2")
    # The same file as a writer of large files leaves it: every length in the wide fields.
    name_end = at + 47
    wide = b"\1\0\x18\0" + (4).to_bytes(8, "little") * 2 + (0).to_bytes(8, "little")
    entry = bytearray(data[at:name_end])
    entry[20:28], entry[30:32], entry[42:46] = b"\xff" * 8, len(wide).to_bytes(2, "little"), b"\xff" * 4
    directory = bytes(entry) + wide
    end64 = b"PK\6\6" + (44).to_bytes(8, "little") + b"\x2d\x03\x2d\x00" + bytes(8)
    end64 += (1).to_bytes(8, "little") * 2 + len(directory).to_bytes(8, "little") + at.to_bytes(8, "little")
    locator = b"PK\6\7" + bytes(4) + (at + len(directory)).to_bytes(8, "little") + (1).to_bytes(4, "little")
    end = b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2)
    archive_ = verify_file.Archive(BytesIO(data[:at] + directory + end64 + locator + end))
    assert b"".join(archive_.stream(archive_.members[0])) == b"data"
    wrong = end[:8] + b"\2\0" * 2 + end[12:]
    with pytest.raises(verify_file.UnreadableError):
        verify_file.Archive(BytesIO(data[:at] + directory + end64 + locator + wrong))
