"""HTTPS of the workers: one certificate chain and its key, TLS 1.2 or newer.

A worker reads both files when it starts. After a rotation, end the workers one by one (SIGTERM): each finishes what is open, and the
supervisor starts it again with the new files.
"""

import ssl
from pathlib import Path

from audit_service.errors import AuditError
from audit_service.private_file import is_open_to_others


class TlsError(AuditError):
    """The certificate or its key cannot be used as they are."""


def make_context(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """The server's side of TLS. Raises TlsError, which names the file and nothing that stands in it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if is_open_to_others(key_file):
            raise TlsError(f"AUDIT_TLS_KEY_FILE: {key_file} may be read by others: chmod 600 it")
        # Never asks for a passphrase on a terminal that is not there.
        context.load_cert_chain(cert_file, key_file, password=_no_passphrase)
    except ssl.SSLError:
        raise TlsError(f"AUDIT_TLS_CERT_FILE: {cert_file} and {key_file} are no certificate and its key") from None
    except OSError as error:
        raise TlsError(
            f"AUDIT_TLS_CERT_FILE, AUDIT_TLS_KEY_FILE: {error.strerror}: {error.filename or cert_file}"
        ) from None
    return context


def _no_passphrase() -> str:
    return ""
