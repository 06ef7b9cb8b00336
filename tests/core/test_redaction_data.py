"""Real records: no token value survives, and nearly everything else does."""

import json
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from audit_service.core.canonical import JSONValue
from audit_service.core.redaction import compile_ruleset, redact_text, redact_value

DATA = Path(__file__).parents[3] / "shared" / "data"
RULES = compile_ruleset()

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no folder of real data beside the repository")


def records(name: str) -> list[JSONValue]:
    with (DATA / name).open("rb") as lines:
        return [orjson.loads(line) for line in lines if line.strip()]


def leaves(value: JSONValue) -> Iterator[JSONValue]:
    if isinstance(value, dict):
        for member in value.values():
            yield from leaves(member)
    elif isinstance(value, list):
        for member in value:
            yield from leaves(member)
    else:
        yield value


def written(values: list[JSONValue]) -> str:
    return json.dumps(values, ensure_ascii=False)


@needs_data
@pytest.mark.parametrize(
    ("name", "secrets"),
    [
        ("netbox-webhooks/requests.ndjson", ["hunter2", "hunter3", "gh" + "p_0123", "gh" + "p_zyxw"]),
        ("cloudtrail-invictus/records-500.ndjson", ["AS" + "IA", "AK" + "IA", "IQo" + "Jb3JpZ2lu"]),
        ("panther-samples/sample-400.ndjson", ["0771cae4d170dc02", "TUReBWZ8", "OJ0d2L", "stateToken=02"]),
    ],
)
def test_no_secret_of_a_real_record_survives(name: str, secrets: list[str]) -> None:
    found = records(name)
    before, after = written(found), written([redact_value(record, RULES) for record in found])
    for secret in secrets:
        assert secret in before, "the data no longer holds what this test looks for"
        assert secret not in after
    text = (DATA / name).read_text(encoding="utf-8")
    assert not any(secret in redact_text(line, RULES) for line in text.splitlines() for secret in secrets)


@needs_data
@pytest.mark.parametrize(
    ("name", "most_hit"),
    [
        ("github-webhooks-changes/with_changes.ndjson", 0.0),
        # 105 of them are objects named `credentials` and ids of sessions, which are meant to go.
        ("panther-samples/sample-400.ndjson", 0.011),
        # 500 records carry 495 ids of temporary access keys, which are a provider's format.
        ("cloudtrail-invictus/records-500.ndjson", 0.06),
    ],
)
def test_what_is_harmless_in_real_records_survives(name: str, most_hit: float) -> None:
    found = records(name)
    before = list(leaves(found))
    after = list(leaves([redact_value(record, RULES) for record in found]))
    lost = sum(1 for leaf in after if leaf == "[redacted]")
    assert lost <= most_hit * len(before), f"{lost} of {len(before)}"
