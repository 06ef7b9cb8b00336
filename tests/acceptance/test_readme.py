"""The README's commands, run as they stand, answer as they stand (hashes, times, ids and the origin aside)."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.support.processes import start_service

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```sh\n(curl .*?)```\n(?:```json\n(.*?)```)?", re.DOTALL)
VARIES = re.compile(
    r"[0-9a-f]{64}|auv_[0-9A-Za-z]{61}|(?<=_id\": \")[0-9A-Za-z-]+|(?<=\"viewer\": \")[0-9a-f]{32}|"
    r"/t/[0-9a-f]{32}/|\d{4}-\d\d-\d\dT[\d:.]+Z"
)


def test_the_curl_calls_answer_as_printed(tmp_path: Path) -> None:
    """Three calls and an export, from a fresh service."""
    blocks = BLOCK.findall((ROOT / "README.md").read_text("utf-8"))
    assert len(blocks) >= 4
    with start_service(tmp_path / "data", AUDIT_SERVICE_NAME="audit.example.com") as service:
        for command, printed in blocks:
            script = command.replace("http://127.0.0.1:8080", service.url)
            ran = subprocess.run(
                ["sh", "-c", script], env={"KEY": service.admin_key, "PATH": "/usr/bin:/bin"}, cwd=tmp_path,
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            if printed:
                assert _settled(json.loads(printed)) == _settled(json.loads(ran.stdout))
        exported = (tmp_path / "audit.csv").read_text("utf-8")
        assert exported.splitlines()[1].startswith("20")
        assert "old one" not in exported


def _settled(value: Any) -> Any:
    return json.loads(VARIES.sub("…", json.dumps(value)))
