"""`serve` over HTTPS with a certificate made here, and secrets that come from files."""

import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.processes import Service, start_service, wait_until

KEY = "file-0123456789-" + "k" * 40


def make_certificate(folder: Path) -> None:
    """A self-made certificate for 127.0.0.1 and its key, in `cert.pem` and `key.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "audit.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = folder / "key.pem"
    private.touch(0o600)
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def trusting(folder: Path) -> ssl.SSLContext:
    """A client that trusts the certificate there and no other."""
    return ssl.create_default_context(cafile=folder / "cert.pem")


def port_of(service: Service) -> int:
    """Where it listens."""
    return int(service.url.rpartition(":")[2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate, key, and a file with the bootstrap key."""
    made = tmp_path_factory.mktemp("tls")
    make_certificate(made)
    secret = made / "bootstrap"
    secret.touch(0o600)
    secret.write_text(KEY + "\n")
    return made


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    """The service over HTTPS; its bootstrap key stands in a file."""
    settings: dict[str, Any] = {
        "AUDIT_TLS_CERT_FILE": str(folder / "cert.pem"),
        "AUDIT_TLS_KEY_FILE": str(folder / "key.pem"),
        "AUDIT_BOOTSTRAP_KEY": "",
        "AUDIT_BOOTSTRAP_KEY_FILE": str(folder / "bootstrap"),
    }
    with start_service(folder / "data", wait=False, **settings) as started:
        assert "https://127.0.0.1:" in started.wait_for_line("listening on")
        yield started


def get(service: Service, folder: Path, path: str, **headers: str) -> httpx.Response:
    """GET over HTTPS."""
    url = f"https://127.0.0.1:{port_of(service)}{path}"
    return httpx.get(url, headers=headers, verify=trusting(folder), timeout=60, trust_env=False)


def test_the_api_answers_over_https_and_says_to_stay_there(service: Service, folder: Path) -> None:
    answer = get(service, folder, "/v1/chain", Authorization=f"Bearer {KEY}")
    assert answer.status_code == 200
    assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
    assert "server" not in answer.headers


def test_plain_http_is_not_answered_there_and_not_redirected(service: Service, folder: Path) -> None:
    """Somebody listens there, takes the request, and answers nothing that is HTTP; the next one over TLS is answered."""
    with socket.create_connection(("127.0.0.1", port_of(service)), timeout=60) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"HTTP/" not in b"".join(iter(lambda: raw.recv(4096), b""))
    assert get(service, folder, "/healthz").status_code == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_newer_are_spoken(service: Service, folder: Path, version: ssl.TLSVersion) -> None:
    context = trusting(folder)
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port_of(service)), timeout=60) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        assert connection.version() == version.name.replace("_", ".")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_1_is_refused_by_the_service(service: Service, folder: Path) -> None:
    context = trusting(folder)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", port_of(service)), timeout=60) as raw,
        pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version|EOF occurred"),
    ):
        context.wrap_socket(raw, server_hostname="127.0.0.1")


def test_what_the_protocol_refuses_is_answered_over_https_too(service: Service, folder: Path) -> None:
    """The end of sending has no form of its own in TLS."""
    answer = get(service, folder, "/healthz", **{"X-Long": "x" * 20_000})
    assert (answer.status_code, answer.headers["content-type"]) == (431, "application/problem+json")
    assert get(service, folder, "/healthz").status_code == 200


def test_the_secret_of_a_file_stands_on_no_command_line_and_in_no_environment(service: Service) -> None:
    for process in [psutil.Process(service.process.pid), *service.children()]:
        assert KEY not in " ".join(process.cmdline())
        assert KEY not in " ".join(process.environ().values())
    assert KEY not in service.output


def test_a_new_certificate_is_used_by_a_worker_that_starts_again(service: Service, folder: Path) -> None:
    assert get(service, folder, "/healthz").status_code == 200  # the worker has read the old one
    make_certificate(folder)
    with pytest.raises(httpx.ConnectError):
        get(service, folder, "/healthz")
    (worker,) = service.workers()
    worker.terminate()

    def answers() -> bool:
        try:
            return get(service, folder, "/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    wait_until(answers, f"an answer with the new certificate; it said:\n{service.output}")


@pytest.mark.parametrize("wrong", ["open key", "no key", "another key", "an encrypted key"])
def test_a_certificate_that_cannot_be_used_stops_the_start_with_one_line(tmp_path: Path, wrong: str) -> None:
    make_certificate(tmp_path)
    key = tmp_path / "key.pem"
    settings: dict[str, Any] = {"AUDIT_TLS_CERT_FILE": str(tmp_path / "cert.pem"), "AUDIT_TLS_KEY_FILE": str(key)}
    match wrong:
        case "open key":
            key.chmod(0o644)
        case "no key":
            key.unlink()
        case "another key":
            other = tmp_path / "other"
            other.mkdir()
            make_certificate(other)
            settings["AUDIT_TLS_KEY_FILE"] = str(other / "key.pem")
        case _:
            encrypted = ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"passphrase"),
            )
            key.write_bytes(encrypted)
    with start_service(tmp_path / "data", wait=False, **settings) as started:
        assert started.process.wait(60) == 2
        started.wait_until_read()
        (line,) = started.lines
        assert "AUDIT_TLS_" in line
        assert "PRIVATE KEY" not in line
        assert not (tmp_path / "data").exists()
