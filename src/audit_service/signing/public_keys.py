"""The installation's own public keys, beside the key file, for whoever verifies and must never hold a seed.

    {"keys": ["<base64 of 32 bytes>", …]}

`<signing folder>/public.json`, 0600. Whoever writes the key file writes this first, so that no signature is ever made by a key that is not
in it: a worker that reads it at each verification knows the keys of a rotation or a revocation from its first moment on. Retired and
revoked keys stay in it; what a revoked one may still sign for, its entry in each log says.
"""

import base64
import binascii
import json
from contextlib import suppress
from pathlib import Path

from audit_service.private_file import replace_private
from audit_service.signing.keyfile import SEED_BYTES, KeyFileError, Keys, read_keys, write_keys

PUBLIC_KEY_BYTES = SEED_BYTES
_NAME = "public.json"


def publish_keys(folder: Path, keys: Keys) -> None:
    """Write the public parts of all keys, retired ones too; durable when this returns. Raises OSError."""
    if published_keys(folder) == keys.publics():
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    encoded = [base64.b64encode(public).decode() for public in sorted(keys.publics())]
    replace_private(folder / _NAME, json.dumps({"keys": encoded}) + "\n")


def replace_keys(folder: Path, key_path: Path, keys: Keys) -> None:
    """Replace the key file, its public parts first. Raises OSError."""
    publish_keys(folder, keys)
    write_keys(key_path, keys)


def published_keys(folder: Path) -> frozenset[bytes]:
    """Every key that signs or ever signed here, 32 bytes each; none where nothing was published, or where it cannot be read."""
    try:
        encoded = json.loads((folder / _NAME).read_text("utf-8"))["keys"]
        publics = [base64.b64decode(item, validate=True) for item in encoded]
    except (OSError, ValueError, KeyError, TypeError, binascii.Error):
        return frozenset()
    return frozenset(publics) if all(len(public) == PUBLIC_KEY_BYTES for public in publics) else frozenset()


def own_keys(folder: Path, key_path: Path) -> frozenset[bytes]:
    """The same for a command, which may be run where no `serve` ever was: from the key file where it can be read, else as published."""
    with suppress(KeyFileError):
        return read_keys(key_path).publics()
    return published_keys(folder)
