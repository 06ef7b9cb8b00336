"""Checkpoints over HTTP: the note as it is, one for each size, only one's own."""

from pathlib import Path

import pytest

from audit_service.core.checkpoint import open_checkpoint, parse_checkpoint
from audit_service.core.note import parse_note
from tests.support.api import Api
from tests.support.apps import add_key, add_tenant, open_api
from tests.support.postgres import TestDatabase
from tests.support.signers import SignerLab, signer_lab

PATHS = ("/v1/chain/checkpoint", "/v1/chain/checkpoints")


@pytest.fixture
async def lab(database: TestDatabase, tmp_path: Path) -> SignerLab:
    """Signed at 0, 1, 2 and 3 (twice)."""
    async with signer_lab(database, tmp_path / "signing") as made:
        life = made.life(heartbeat_seconds=0.0)
        await made.sign(life)
        for _ in range(3):
            await made.append(1)
            await made.sign(life)
        await made.sign(life)
    return made


async def test_the_latest_checkpoint_is_the_signed_note(lab: SignerLab, api: Api) -> None:
    answer = await api.client.get("/v1/chain/checkpoint")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert answer.headers["cache-control"] == "private, max-age=2"
    assert answer.text == (await lab.notes())[-1]
    origin = (await api.client.get("/v1/chain")).json()["origin"]
    key = lab.signing.keys().signing[0].verifier(origin)
    assert open_checkpoint(parse_note(answer.content), [key]).checkpoint.size == 3


@pytest.mark.usefixtures("lab")
async def test_the_chain_says_how_far_it_was_signed(api: Api) -> None:
    chain = (await api.client.get("/v1/chain")).json()
    assert chain["last_checkpoint"]["size"] == 3
    assert chain["last_checkpoint"]["signed_at"].endswith("Z")
    assert chain["pruned_before"] is None


async def test_before_the_first_there_is_none(api: Api) -> None:
    assert (await api.client.get("/v1/chain/checkpoint")).status_code == 404
    listed = await api.client.get("/v1/chain/checkpoints")
    assert (listed.status_code, listed.text) == (200, "")
    assert (await api.client.get("/v1/chain")).json()["last_checkpoint"] is None


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [({}, [0, 1, 2, 3]), ({"from_size": 1, "to_size": 3}, [1, 2]), ({"to_size": 0}, []), ({"from_size": 4}, [])],
)
@pytest.mark.parametrize("limit", [1, 3, 500])
async def test_the_list_has_each_size_once_in_pages(
    lab: SignerLab, api: Api, asked: dict[str, int], sizes: list[int], limit: int
) -> None:
    found: list[int] = []
    url: str = PATHS[1]
    parameters: dict[str, int] | None = {**asked, "limit": limit}
    while True:
        answer = await api.client.get(url, params=parameters)
        assert answer.status_code == 200, answer.text
        notes = _split(answer.text)
        assert len(notes) <= limit
        assert set(notes) <= set(await lab.notes())
        found += [parse_checkpoint(parse_note(note).text).size for note in notes]
        if "next" not in answer.links:
            break
        url, parameters = answer.links["next"]["url"], None
    assert found == sizes


def _split(text: str) -> list[str]:
    """The notes of a list: texts and signatures take turns, with empty lines between."""
    parts = [part.strip("\n") for part in text.split("\n\n") if part]
    return [f"{told}\n\n{signed}\n" for told, signed in zip(parts[::2], parts[1::2], strict=True)]


@pytest.mark.parametrize(
    "query",
    ["size=1", "from_size=-1", "from_size=x", "limit=0", "cursor=abc", "from_size=1&from_size=2"],
)
@pytest.mark.usefixtures("lab")
async def test_parameters_are_strict(api: Api, query: str) -> None:
    answer = await api.client.get(f"/v1/chain/checkpoints?{query}")
    assert answer.status_code == 400
    assert (await api.client.get("/v1/chain/checkpoint?size=1")).status_code == 400


@pytest.mark.usefixtures("lab")
async def test_a_cursor_belongs_to_its_list(api: Api) -> None:
    first = await api.client.get("/v1/chain/checkpoints", params={"limit": 1})
    following = first.links["next"]["url"]
    assert (await api.client.get(following)).status_code == 200
    assert (await api.client.get(f"{following}&from_size=1")).status_code == 400


async def test_only_with_the_scope_and_only_ones_own(lab: SignerLab, api: Api, database: TestDatabase) -> None:
    reader = await add_key(database, lab.log.log_id, ["read"])
    other = await add_key(database, await add_tenant(database, "other"), ["verify"])
    for path in PATHS:
        assert (await api.client.get(path, headers={"Authorization": "none"})).status_code == 401
        assert (await api.client.get(path, headers={"Authorization": f"Bearer {reader}"})).status_code == 403
    async with open_api(database, key=other) as theirs:
        assert (await theirs.client.get(PATHS[0])).status_code == 404
        assert (await theirs.client.get(PATHS[1])).text == ""


@pytest.mark.usefixtures("lab")
async def test_metrics_say_how_far_signing_is_behind(api: Api) -> None:
    lines = (await api.client.get("/metrics")).text.splitlines()
    figures = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert (float(figures["audit_log_size"]), float(figures["audit_checkpoint_size"])) == (3, 3)
    assert float(figures["audit_unsigned_logs"]) == 1  # that of `system`: the lab signs one log
    assert 0 <= float(figures["audit_checkpoint_age_seconds"]) < 60
