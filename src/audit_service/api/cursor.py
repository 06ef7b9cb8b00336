"""Opaque cursors: where a page ended, signed, and bound to the endpoint, the tenant, the filters and the sort order.

A cursor carries no authority: what may be seen is taken from the credential again. Format: base64url of 16 bytes MAC || version 1 and
- in a list of events: occurred_at (microseconds, signed 64 bit) || seq (64 bit),
- in a list of names: the name in UTF-8.
"""

import base64
import binascii
import hmac
import struct
from datetime import timedelta
from hashlib import sha256

from audit_service.core.checker import EPOCH, microseconds
from audit_service.errors import Fault, InvalidQueryError
from audit_service.store.selection import Position

_BODY = struct.Struct(">Bqq")
_MAC_BYTES = 16
_VERSION = 1


def format_cursor(position: Position, secret: bytes, binding: str) -> str:
    """The cursor after `position`, valid only with the same `binding`."""
    return _signed(_BODY.pack(_VERSION, microseconds(position.occurred_at), position.seq), secret, binding)


def parse_cursor(text: str, secret: bytes, binding: str) -> Position:
    """The inverse of `format_cursor`. Raises InvalidQueryError for anything but an unchanged cursor of this binding."""
    body = _checked(text, secret, binding)
    if len(body) != _BODY.size:
        raise _not_ours()
    _, at_us, seq = _BODY.unpack(body)
    return Position(EPOCH + timedelta(microseconds=at_us), seq)


def format_name_cursor(name: str, secret: bytes, binding: str) -> str:
    """The cursor after `name`, valid only with the same `binding`."""
    return _signed(bytes([_VERSION]) + name.encode(), secret, binding)


def parse_name_cursor(text: str, secret: bytes, binding: str) -> str:
    """The inverse of `format_name_cursor`. Raises InvalidQueryError for anything but an unchanged cursor of this binding."""
    return _checked(text, secret, binding)[1:].decode()


def _signed(body: bytes, secret: bytes, binding: str) -> str:
    return base64.urlsafe_b64encode(_mac(secret, binding, body) + body).rstrip(b"=").decode()


def _checked(text: str, secret: bytes, binding: str) -> bytes:
    """The body of a cursor that we signed. Raises InvalidQueryError."""
    try:
        data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        data = b""
    mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
    # The MAC over the decoded bytes does not see another spelling of them: the text must be the one we wrote.
    spelled = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    if spelled != text or not hmac.compare_digest(mac, _mac(secret, binding, body)):
        raise _not_ours()
    return body


def _not_ours() -> InvalidQueryError:
    return InvalidQueryError(
        "the cursor does not belong to this request",
        [Fault("must be the next_cursor of a page with the same filters and sort", parameter="cursor")],
    )


def _mac(secret: bytes, binding: str, body: bytes) -> bytes:
    return hmac.new(secret, b"cursor\n" + binding.encode() + b"\n" + body, sha256).digest()[:_MAC_BYTES]
