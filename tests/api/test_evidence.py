"""Bundles of evidence as they are served, held against the offline verifier, which shares no code with what made them."""

import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from audit_service import evidence, retention
from audit_service.core.forgetting import Person
from audit_service.offline import verify_file
from audit_service.store import slices
from tests.api.test_export_ends import becomes_quiet
from tests.support.api import Api
from tests.support.appends import owner
from tests.support.apps import add_key, add_tenant, open_api
from tests.support.commands import tell
from tests.support.forgetting import AUTHOR, REFERENCE, retention_pools
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase, default_log_id
from tests.support.serving import served
from tests.support.signing import TestSigner
from tests.support.tampering import EVENTS

SIZE = 2 * len(EVENTS)


@dataclass(frozen=True, slots=True)
class Bench:
    """A log, its signer, and the offline verifier."""

    api: Api
    signer: TestSigner
    admin: asyncpg.Connection
    database: TestDatabase
    folder: Path
    vkey: str

    async def ask(self, **parameters: Any) -> httpx.Response:
        """GET /v1/evidence."""
        return await self.api.client.get("/v1/evidence", params=parameters)

    async def bundle(self, **parameters: Any) -> bytes:
        """A bundle."""
        response = await self.ask(**parameters)
        assert response.status_code == 200, response.text
        return response.content

    def check(self, bundle: bytes, *, keys: tuple[str, ...] | None = None) -> verify_file.Report:
        """What the offline verifier says."""
        path = self.folder / "evidence.zip"
        path.write_bytes(bundle)
        return verify_file.verify(path, (self.vkey,) if keys is None else keys, processes=1)

    async def verified(self, **parameters: Any) -> dict[str, bytes]:
        """The members of a bundle in which everything holds."""
        bundle = await self.bundle(**parameters)
        report = self.check(bundle)
        assert report.exit_code() == verify_file.EXIT_GOOD, verify_file.format_report(report)
        return members(bundle)


def members(bundle: bytes) -> dict[str, bytes]:
    """A bundle as every unzip program sees it."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def lines(content: bytes) -> list[dict[str, Any]]:
    """A member of lines."""
    return [json.loads(line) for line in content.splitlines()]


async def make_bench(api: Api, database: TestDatabase, admin: asyncpg.Connection, folder: Path) -> Bench:
    """A log of SIZE entries of every shape, signed at half its size and at the whole."""
    signer = TestSigner(admin, await default_log_id(database))
    for half in range(2):
        await api.accept(*({**event, "id": f"e-{half}-{n}"} for n, event in enumerate(EVENTS)))
        await signer.sign()
    return Bench(api, signer, admin, database, folder, await signer.vkey())


@pytest.fixture(scope="module")
async def shared(module_database: TestDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """For tests that only read."""
    async with open_api(module_database) as api, owner(module_database) as admin:
        yield await make_bench(api, module_database, admin, tmp_path_factory.mktemp("evidence"))


@pytest.fixture
async def bench(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Bench]:
    """A log of the test's own."""
    async with open_api(database) as api, owner(database) as admin:
        yield await make_bench(api, database, admin, tmp_path)


async def test_a_bundle_of_the_whole_log_holds(shared: Bench) -> None:
    response = await shared.ask()
    key = (await shared.signer.origin()).split("/")[2]
    assert response.headers["content-type"] == "application/zip"
    assert response.headers["content-disposition"] == f'attachment; filename="evidence-{key[:8]}-0-{SIZE}.zip"'
    assert response.headers["cache-control"] == "no-store"
    assert shared.check(response.content).exit_code() == verify_file.EXIT_GOOD
    found = members(response.content)
    assert list(found) == ["entries.ndjson", "controls.ndjson", "proof.json", "checkpoint", "manifest.json"]
    manifest = json.loads(found["manifest.json"])
    assert manifest["members"] == {
        name: {"bytes": len(content), "sha256": sha256(content).hexdigest()}
        for name, content in found.items()
        if name != "manifest.json"
    }
    told = {
        name: manifest[name] for name in ("from_seq", "to_seq", "size", "count", "kinds", "filters", "pruned_before")
    }
    assert told == {
        "from_seq": 0, "to_seq": SIZE, "size": SIZE, "count": SIZE, "kinds": {"event": SIZE}, "filters": None,
        "pruned_before": None,
    }  # fmt: skip
    assert manifest["completeness"] == "proven"
    assert manifest["origin"] == await shared.signer.origin()


async def test_the_bytes_in_a_bundle_are_those_that_were_hashed(shared: Bench) -> None:
    query = "SELECT * FROM audit.entry WHERE log_id = $1 AND seq < $2 ORDER BY seq"
    rows = await shared.admin.fetch(query, shared.signer.log_id, SIZE)  # after them, it is noted what was made
    for line, row in zip(lines((await shared.verified())["entries.ndjson"]), rows, strict=True):
        assert sha256(b"\x00" + line["header"].encode()).digest() == row["hash"]
        assert line["body"] == row["body"]
        assert line["disclosures"].keys() == {
            name.removeprefix("d_") for name, value in row.items() if name.startswith("d_") and value is not None
        }


async def test_any_range_holds_against_any_checkpoint_that_covers_it(shared: Bench) -> None:
    half = SIZE // 2
    for from_seq, to_seq in ((0, 0), (0, 1), (1, 2), (3, 11), (half - 1, half), (half, half), (0, half), (5, half)):
        for size in (half, SIZE):
            found = await shared.verified(from_seq=from_seq, to_seq=to_seq, checkpoint_size=size)
            seqs = [line["seq"] for line in lines(found["entries.ndjson"])]
            assert seqs == list(range(from_seq, to_seq))
            assert json.loads(found["manifest.json"])["size"] == size
    for from_seq, to_seq in ((half, SIZE), (SIZE - 1, SIZE), (SIZE, SIZE), (7, SIZE - 1)):
        await shared.verified(from_seq=from_seq, to_seq=to_seq)
    assert json.loads((await shared.verified(from_seq=3))["manifest.json"])["to_seq"] == SIZE


async def test_a_filtered_bundle_proves_each_entry_and_says_that_it_proves_no_more(shared: Bench) -> None:
    query = {"action": ["user.*", "server:*"], "from_seq": 2, "to_seq": SIZE - 2, "outcome.not": "failure"}
    found = await shared.verified(**query)
    assert "proof.json" not in found
    manifest = json.loads(found["manifest.json"])
    assert manifest["filters"] == "action=user.%2A&action=server%3A%2A&outcome.not=failure"
    assert manifest["completeness"] == "not proven: filtered"
    listed = await shared.api.list(**{"action": ["user.*", "server:*"], "outcome.not": "failure", "sort": "seq"})
    expected = [event["seq"] for event in listed if 2 <= event["seq"] < SIZE - 2]
    assert expected
    assert [line["seq"] for line in lines(found["entries.ndjson"])] == expected
    assert manifest["count"] == len(expected)
    nothing = await shared.verified(action="nobody.did")
    assert nothing["entries.ndjson"] == b""


async def test_without_the_key_nobody_can_tell_and_another_key_is_no_key(shared: Bench) -> None:
    bundle = await shared.bundle()
    assert shared.check(bundle, keys=()).exit_code() == verify_file.EXIT_UNKNOWN
    other = await TestSigner(shared.admin, await add_tenant(shared.database, "another")).vkey()
    assert shared.check(bundle, keys=(other,)).exit_code() == verify_file.EXIT_BAD


@pytest.mark.parametrize(
    ("query", "status", "blamed"),
    [
        ({"from_seq": "-1"}, 400, "from_seq"),
        ({"from_seq": "5", "to_seq": "4"}, 400, "from_seq"),
        ({"to_seq": SIZE * 100}, 400, "to_seq"),
        ({"to_seq": ["1", "2"]}, 400, "to_seq"),
        ({"checkpoint_size": "3"}, 400, "checkpoint_size"),
        ({"checkpoint_size": ""}, 400, "checkpoint_size"),
        ({"limit": "1"}, 400, "limit"),
        ({"verb": "none"}, 400, "verb"),
        ({"to_seq": SIZE, "checkpoint_size": SIZE // 2}, 409, None),
    ],
)
async def test_what_cannot_be_had_is_refused(
    shared: Bench, query: dict[str, Any], status: int, blamed: str | None
) -> None:
    response = await shared.ask(**query)
    assert response.status_code == status, response.text
    if blamed is not None:
        assert [fault["parameter"] for fault in response.json()["errors"]] == [blamed]
    else:
        assert int(response.headers["retry-after"]) > 0


async def test_evidence_needs_the_scope_export_and_is_of_the_own_log(shared: Bench) -> None:
    key = await add_key(shared.database, shared.signer.log_id, ["read", "verify", "ingest"])
    refused = await shared.api.client.get("/v1/evidence", headers={"Authorization": f"Bearer {key}"})
    assert refused.status_code == 403
    log_id = await add_tenant(shared.database, "foreign")
    async with open_api(shared.database, key=await add_key(shared.database, log_id)) as api:
        assert (await api.client.get("/v1/evidence")).status_code == 409
        await api.accept({"id": "mine", "action": "x"})
        signer = TestSigner(shared.admin, log_id)
        await signer.sign()
        bundle = (await api.client.get("/v1/evidence")).content
    assert [json.loads(line["body"])["id"] for line in lines(members(bundle)["entries.ndjson"])] == ["mine"]
    assert shared.check(bundle, keys=(await signer.vkey(),)).exit_code() == verify_file.EXIT_GOOD
    assert shared.check(bundle).exit_code() == verify_file.EXIT_BAD


async def test_what_the_service_notes_of_itself_is_withheld_from_who_does_not_see_it(bench: Bench) -> None:
    """A whole range has the entries, without their disclosures, and the verifier says so: no tampering, and not good. With `audit_entries`
    everything is in it, as before."""
    api, canary = bench.api, "canary-5e6b4172"
    asked = {"scopes": ["export"], "name": canary}
    keys = [
        (await api.client.post("/v1/keys", json={**asked, **more})).json()["key"]
        for more in ({}, {"audit_entries": True})
    ]
    limited, seeing = ({"Authorization": f"Bearer {key}"} for key in keys)
    await bench.signer.sign()
    size = SIZE + 2
    whole, part = [
        (await api.client.get("/v1/evidence", params={"to_seq": size}, headers=headers)).content
        for headers in (seeing, limited)
    ]
    assert canary.encode() in members(whole)["entries.ndjson"]
    assert bench.check(whole).exit_code() == verify_file.EXIT_GOOD
    assert canary.encode() not in b"".join(members(part).values())
    report = bench.check(part)
    check = report.checks()["disclosures"]
    assert (report.exit_code(), check.verdict, check.reason) == (
        verify_file.EXIT_UNKNOWN,
        "not_checked",
        "withheld, not checked",
    )
    assert {name for name, one in report.checks().items() if one.verdict in {"fail", "not_checked"}} <= {
        "disclosures",
        "policy",
    }
    shown, kept = (lines(members(bundle)["entries.ndjson"]) for bundle in (whole, part))
    withheld = {line["seq"]: line["withheld"] for line in kept if "withheld" in line}
    assert withheld == {line["seq"]: [*line["disclosures"]] for line in shown[SIZE:]}
    assert check.faults == sum(map(len, withheld.values())) > 0
    assert kept[:SIZE] == shown[:SIZE]
    assert all(line["disclosures"] == {} for line in kept[SIZE:])


async def test_filters_find_nothing_of_what_the_service_notes_for_who_does_not_see_it(bench: Bench) -> None:
    """Else whether a filter on a hidden value selects the entry would tell the value."""
    body = {"name": "limited", "scopes": ["export"]}
    key = (await bench.api.client.post("/v1/keys", json=body)).json()["key"]
    await bench.signer.sign()
    for headers, found in ((None, 1), ({"Authorization": f"Bearer {key}"}, 0)):
        response = await bench.api.client.get("/v1/evidence", params={"action": "audit.key.created"}, headers=headers)
        assert len(lines(members(response.content)["entries.ndjson"])) == found
        assert bench.check(response.content).exit_code() == verify_file.EXIT_GOOD


# --- logs of which something was forgotten ---


async def _clear(bench: Bench) -> None:
    async with retention_pools(bench.database) as pools:
        await retention.clear(pools, bench.signer.log_id, AUTHOR, to_seq=7)


async def _erase(bench: Bench) -> None:
    async with retention_pools(bench.database) as pools:
        done = await retention.erase(pools, bench.signer.log_id, AUTHOR, Person("u1"), reference=REFERENCE)
    assert done.values > 0


Forgetting = Callable[[Bench], Coroutine[Any, Any, None]]


@pytest.mark.parametrize(("forget", "kinds"), [(_clear, ["drop"]), (_erase, ["erase"])])
async def test_what_was_forgotten_is_explained_by_control_entries_behind_it(
    bench: Bench, forget: Forgetting, kinds: list[str]
) -> None:
    await forget(bench)
    refused = await bench.ask(to_seq=SIZE)
    assert refused.status_code == 409, "the checkpoint covers no entry that explains what is missing"
    assert int(refused.headers["retry-after"]) > 0
    await bench.signer.sign()
    for query in ({"to_seq": SIZE}, {}, {"action": "user.*"}, {"to_seq": 5}):
        found = await bench.verified(**query)
        assert [line["header"].split("\n")[4] for line in lines(found["controls.ndjson"])] == kinds
    report = bench.check(await bench.bundle(to_seq=SIZE))
    assert report.checks()["forgotten"].verdict == "pass"
    assert sum(report.forgotten.values()) > 0


async def test_control_entries_that_touch_other_entries_stay_out(bench: Bench) -> None:
    await _clear(bench)
    await bench.signer.sign()
    assert (await bench.verified(from_seq=7, to_seq=SIZE))["controls.ndjson"] == b""


async def test_a_bundle_without_what_explains_it_does_not_hold(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: were the control entries left out, the verifier would say so."""
    await _clear(bench)
    await bench.signer.sign()
    monkeypatch.setattr(evidence, "touches", lambda *_: False)
    report = bench.check(await bench.bundle(to_seq=SIZE))
    assert report.checks()["forgotten"].verdict == "fail"


async def test_what_is_forgotten_while_a_bundle_is_made_breaks_it_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = slices.stream_range

    async def forgetting(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
        async for rows in stream(*arguments, **named):
            yield rows
            if not named:
                await _clear(bench)

    monkeypatch.setattr(evidence, "stream_range", forgetting)
    assert (await bench.ask()).status_code == 409


# --- damaged logs ---


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit.entry SET recorded_at = recorded_at + interval '1 microsecond' WHERE seq = 5",
        "UPDATE audit.entry SET hash = sha256(hash) WHERE seq = 5",
        "UPDATE audit.entry SET d_actor = '\\xff' || d_actor || '\\xff' WHERE seq = 0",
        "DELETE FROM audit.entry WHERE seq = 5",
        "UPDATE audit.entry SET seq = seq + 1000 WHERE seq = 5",
    ],
)
@pytest.mark.parametrize("query", [{}, {"action.not": "nothing"}])
async def test_of_a_damaged_log_there_is_no_bundle(bench: Bench, statement: str, query: dict[str, Any]) -> None:
    await bench.admin.execute("ALTER TABLE audit.entry DISABLE TRIGGER ALL")
    assert (await bench.admin.execute(statement)).endswith(" 1")
    response = await bench.ask(**query)
    assert response.status_code == 500, verify_file.format_report(bench.check(response.content))
    assert response.json()["type"].endswith(":tree-damaged")


async def test_a_body_that_was_changed_is_in_the_bundle_and_found(bench: Bench) -> None:
    """The tree says nothing of bodies; the header does, and the verifier holds the two together."""
    await bench.admin.execute("ALTER TABLE audit.entry DISABLE TRIGGER ALL")
    await bench.admin.execute("UPDATE audit.entry SET body = replace(body, 'success', 'failure') WHERE seq = 6")
    report = bench.check(await bench.bundle())
    assert (report.checks()["bodies"].verdict, report.checks()["bodies"].first_bad_seq) == ("fail", 6)


# --- large ones ---


async def test_a_large_bundle_is_streamed_and_a_client_that_goes_away_ends_it(
    database: TestDatabase, tmp_path: Path
) -> None:
    async with served(database, exports_limit=1) as opened, owner(database) as admin:
        for start in range(0, 3000, 500):
            many = [
                {"action": "x", "description": f"{start + n} {sha256(str(n).encode()).hexdigest() * 20}"}
                for n in range(500)
            ]
            assert (await opened.api.client.post("/v1/events", json=many)).status_code == 201
        signer = TestSigner(admin, await default_log_id(database))
        await signer.store_tiles()
        await signer.sign()
        async with opened.wire(small=True) as wire:
            head = f"GET /v1/evidence HTTP/1.1\r\nHost: audit.test\r\nAuthorization: Bearer {BOOTSTRAP_KEY}\r\n\r\n"
            await wire.send(head.encode())
            assert (await wire.head())[0] == 200
            assert (await opened.api.client.get("/v1/evidence")).status_code == 503
            wire.abort()
            await becomes_quiet(opened.api.service)
        for query in ("", "?action=x", "?q=2999%20"):
            bundle = await opened.api.client.get(f"/v1/evidence{query}")
            path = tmp_path / "large.zip"
            path.write_bytes(bundle.content)
            report = verify_file.verify(path, [await signer.vkey()], processes=1)
            assert report.exit_code() == verify_file.EXIT_GOOD, verify_file.format_report(report)
        cut = tmp_path / "cut.zip"
        cut.write_bytes(bundle.content[:-1])
        assert verify_file.verify(cut, [await signer.vkey()]).exit_code() == verify_file.EXIT_UNKNOWN


async def test_the_command_writes_the_same_bundle(bench: Bench) -> None:
    output = bench.folder / "bundle.zip"
    told = await tell(
        bench.database, "evidence", "--from-seq", "3", "--to-seq", "9", "--out", str(output), "--action", "*"
    )
    assert told.status == 0, told.err
    found = members(output.read_bytes())
    assert [line["seq"] for line in lines(found["entries.ndjson"])] == list(range(3, 9))
    assert bench.check(output.read_bytes()).exit_code() == verify_file.EXIT_GOOD
    refused = await tell(bench.database, "evidence", "--from-seq", "9", "--to-seq", "3", "--out", str(output))
    assert refused.status == 2
    assert b"from_seq" in refused.err


async def test_a_checkpoint_of_what_was_lost_is_none_to_ask_for(bench: Bench) -> None:
    """After a `resume` the log does not lead to it; nothing is damaged. One that it still leads to makes a bundle as ever."""
    await bench.signer.sign(SIZE - 1, root=b"l" * 32)
    await bench.admin.execute("ALTER TABLE audit.log DISABLE TRIGGER ALL")
    await bench.admin.execute("UPDATE audit.log SET epoch = 2 WHERE log_id = $1", bench.signer.log_id)
    await bench.signer.sign()
    response = await bench.ask(checkpoint_size=SIZE - 1)
    assert (response.status_code, response.json()["errors"][0]["parameter"]) == (400, "checkpoint_size")
    await bench.verified(checkpoint_size=SIZE // 2)
