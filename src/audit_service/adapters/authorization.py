"""Where senders put the API key: their spellings of the header Authorization, each as a list of candidates."""

import base64
import binascii


def bearer_keys(authorization: str) -> list[str]:
    """`Bearer <key>`: the default; every adapter takes it."""
    scheme, key = _split(authorization)
    return [key] if scheme == "bearer" else []


def splunk_keys(authorization: str) -> list[str]:
    """`Splunk <key>`, and Basic with the key as the password, which HEC takes too."""
    scheme, key = _split(authorization)
    if scheme == "splunk":
        return [key]
    return basic_passwords(authorization) or bearer_keys(authorization)


def elasticsearch_keys(authorization: str) -> list[str]:
    """Basic with the key as the password; `ApiKey base64(id:key)`, or `ApiKey <key>` as it is."""
    scheme, key = _split(authorization)
    if scheme == "apikey":
        decoded = _decoded(key)
        return [*([decoded.partition(":")[2]] if decoded else []), key]
    return basic_passwords(authorization) or bearer_keys(authorization)


def wings_keys(authorization: str) -> list[str]:
    """`Bearer <token id>.<token>` with the key as the token; a key that itself holds a dot works as the whole, too."""
    return [candidate for key in bearer_keys(authorization) for candidate in (key.partition(".")[2], key) if candidate]


def basic_passwords(authorization: str) -> list[str]:
    """The password of HTTP Basic; the user name is free."""
    scheme, key = _split(authorization)
    decoded = _decoded(key) if scheme == "basic" else None
    return [decoded.partition(":")[2]] if decoded else []


def _split(authorization: str) -> tuple[str, str]:
    scheme, _, key = authorization.strip().partition(" ")
    return scheme.lower(), key.strip()


def _decoded(text: str) -> str | None:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
