"""The check of the lock files passes, and goes red for each thing it is there for."""

import pytest
from scripts.check_locks import LOCKS, ROOT, check, is_permitted

HASH = "    --hash=sha256:" + "0" * 64
TEXTS = {lock: (ROOT / lock).read_text("utf-8") for lock in LOCKS}


def test_the_lock_files_are_as_they_must_be() -> None:
    assert check(TEXTS) == []
    assert sum(text.count("==") for text in TEXTS.values()) > 100


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("left-pad==1.0\n", "left-pad has no hash"),
        (f"left-pad>=1.0 \\\n{HASH}\n", "is neither a pin nor a hash"),
        (f"left-pad @ file:///tmp/x \\\n{HASH}\n", "is neither a pin nor a hash"),
        ("--index-url https://mirror.example/simple\n", "it names a host"),
        ("# from https://mirror.example/simple\n", "it names a host"),
        (f"python-jose==3.5.0 \\\n{HASH}\n", "python-jose is refused"),
        (f"orjson==3.11.5 \\\n{HASH}\n", "orjson 3.11.5 is below 3.11.6"),
        (f"Starlette==1.2.0 \\\n{HASH}\n", "starlette 1.2.0 is below 1.3.1"),
        (f"anyio==0.0.1 ; python_version < '3' \\\n{HASH}\n", "anyio is 0.0.1, and "),
    ],
)
def test_what_must_not_be_in_a_lock_file_is_named(line: str, says: str) -> None:
    faults = check(TEXTS | {"changed": TEXTS["requirements.lock"] + line})
    assert any(says in fault for fault in faults), faults


@pytest.mark.parametrize(
    ("licence", "permitted"),
    [
        ("MIT", True),
        ("Apache-2.0 AND BSD-2-Clause", True),
        ("GPL-3.0-only OR MIT", True),
        ("BSD License", True),
        ("", False),
        ("GPL-3.0-only", False),
        ("MIT AND LGPL-3.0-only", False),
        ("MPL-2.0", False),
        ("GNU Affero General Public License v3", False),
        ("Other/Proprietary License", False),
    ],
)
def test_a_licence_permits_or_not(licence: str, *, permitted: bool) -> None:
    assert is_permitted("some-package", licence) is permitted
