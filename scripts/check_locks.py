"""What the lock files must be: every pin exact and hashed, no host of a registry, no known-bad version, licences that permit.

    python -m scripts.check_locks

Works offline, on the lock files and the metadata of what is installed; `make check` runs it. Where the network may be asked, this finds
advisories that were published since: `pip-audit --require-hashes -r requirements.lock`.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import cast

from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
# The first version without what is named; what is below must not come back.
FLOORS = {
    "h11": ("0.16.0", "CVE-2025-43859: lenient chunked bodies let requests be smuggled"),
    "orjson": ("3.11.6", "CVE-2025-67221: deeply nested values crash the serialiser"),
    "pyjwt": ("2.13.0", "algorithm confusion and header checks of earlier versions"),
    "starlette": ("1.3.1", "CVE-2026-54283 and CVE-2024-47874: bodies without a limit"),
}
REFUSED = {
    "passlib": "no longer kept",
    "pymerkle": "GPL",
    "python-jose": "mpdavis/python-jose#407 and #419: JWT verification",
    "python-multipart": "nothing here takes forms",
}
PERMISSIVE = re.compile(
    r"\b(MIT|MIT-0|BSD|0BSD|[23]-Clause BSD|BSD-[23]-Clause|Apache|ISC|PSF|Python Software Foundation|Unlicense|Zlib)\b",
    re.IGNORECASE,
)
# Copyleft of single files, used as they come: nothing of theirs is changed or copied into this repository.
FILE_COPYLEFT = frozenset({"certifi", "hypothesis", "orjson", "pathspec"})

_PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)(?:\s*;[^\\]*)?\s*\\?")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\s*\\?")


def read_pins(text: str) -> tuple[dict[str, str], list[str]]:
    """(name → version, what is wrong) of a lock file's text."""
    pins: dict[str, str] = {}
    hashes: dict[str, int] = {}
    faults, last = [], ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if pin := _PIN.fullmatch(stripped):
            last = _canonical(pin["name"])
            pins[last] = pin["version"]
            hashes.setdefault(last, 0)
        elif last and _HASH.fullmatch(stripped):
            hashes[last] += 1
        else:
            faults.append(f"line {number} is neither a pin nor a hash")
    faults += [f"{name} has no hash" for name, count in hashes.items() if not count]
    if re.search(r"https?://|--(?:extra-)?index-url|--find-links|--trusted-host", text):
        faults.append("it names a host")
    return pins, faults


def version_faults(pins: Mapping[str, str]) -> Iterator[str]:
    """What must not be installed."""
    for name, version in pins.items():
        if name in REFUSED:
            yield f"{name} is refused: {REFUSED[name]}"
        floor, reason = FLOORS.get(name, ("0", ""))
        if Version(version) < Version(floor):
            yield f"{name} {version} is below {floor}: {reason}"


def licence_faults(names: Iterable[str]) -> Iterator[str]:
    """What of the installed packages says a licence that does not permit, or none."""
    for name in names:
        try:
            licence = licence_of(cast("Message", metadata(name)))
        except PackageNotFoundError:
            continue  # of another platform
        if not is_permitted(name, licence):
            yield f"{name} is licensed as {licence or 'nobody says'}"


def is_permitted(name: str, licence: str) -> bool:
    """Whether every part of the licence permits."""
    if name in FILE_COPYLEFT:
        return True
    # `A OR B` is ours to choose, `A AND B` holds as a whole.
    return any(
        all(
            PERMISSIVE.search(part) and not re.search(r"GPL|MPL|Mozilla|EUPL|AGPL", part)
            for part in choice.split(" AND ")
        )
        for choice in re.split(r" OR |\|", licence.strip("()"))
    )


def licence_of(found: Message) -> str:
    """What a package says of its licence: the expression, else its classifiers, else the free text."""
    expression = found.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [str(value) for value in found.get_all("Classifier") or []]
    named = [value.rpartition("::")[2].strip() for value in classifiers if value.startswith("License ::")]
    return "|".join(named) or (found.get("License") or "").partition("\n")[0]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check(texts: Mapping[str, str]) -> list[str]:
    """Everything that is wrong with these lock files."""
    found: list[str] = []
    all_pins: dict[str, str] = {}
    for lock, text in texts.items():
        pins, faults = read_pins(text)
        faults += version_faults(pins)
        faults += [
            f"{name} is {version}, and {all_pins[name]} in another lock file"
            for name, version in pins.items()
            if all_pins.get(name, version) != version
        ]
        found += [f"{lock}: {fault}" for fault in faults]
        all_pins |= pins
    return [*found, *licence_faults(all_pins)]


def main() -> int:
    """Print what is wrong; 0 when nothing is."""
    faults = check({lock: (ROOT / lock).read_text("utf-8") for lock in LOCKS})
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
