"""Whose address a request comes from: the right-most that is no trusted proxy, whatever a client writes to its left."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.api.peer import Proxies, find_peer, parse_address
from audit_service.settings import Settings

TRUSTED = ("10.0.0.0/8", "fd00::/8", "192.0.2.7/32")
REAL, FAKE = "203.0.113.9", "198.51.100.1"


def peer(*values: str, client: Any = ("10.0.0.2", 5000), header: str = "x-forwarded-for", **more: str) -> str | None:
    """The peer of a request with these values of the header."""
    headers = [(header.encode(), value.encode("latin-1")) for value in values]
    headers += [(name.replace("_", "-").encode(), value.encode()) for name, value in more.items()]
    found = find_peer({"headers": headers, "client": client}, Proxies.of(TRUSTED, header))
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((), "10.0.0.2"),
        ((REAL,), REAL),
        ((f"{FAKE}, {REAL}",), REAL),
        ((FAKE, REAL), REAL),  # two header lines are one list
        ((f"{FAKE}, {REAL}, 10.1.1.1",), REAL),
        ((f"{FAKE}, {REAL}, 10.1.1.1, fd00::5",), REAL),
        (("10.9.9.9, 10.1.1.1",), "10.9.9.9"),  # from inside: all are proxies, the first asked
        ((f"{REAL}:61000",), REAL),
        (("[2001:db8::1]:443",), "2001:db8::1"),
        (("[2001:db8::1]",), "2001:db8::1"),
        (("2001:DB8:0::1",), "2001:db8::1"),
        ((f"::ffff:{REAL}",), REAL),
        ((f"::ffff:{FAKE}, ::ffff:10.1.1.1",), FAKE),
        # what is no address at the place that counts leaves it unknown; further left nobody looks
        (("unknown",), None),
        ((f"{REAL}, unknown",), None),
        ((f"unknown, {REAL}",), REAL),
        ((f"{REAL}, ",), None),
        ((f"{REAL}, 10.0.0.256",), None),
        ((f"{REAL}, 010.0.0.1",), None),
        ((f"{REAL}, [203.0.113.4]",), None),
        ((f"{REAL}, fe80::1%eth0",), None),
        ((f"{REAL}, 127.0.0.1.nip.example",), None),
        (("\xff\xfe, \x01",), None),
        ((",".join([REAL] + ["10.0.0.1"] * 40),), None),
    ],
)
def test_the_right_most_address_that_is_no_trusted_proxy_counts(values: tuple[str, ...], found: str | None) -> None:
    assert peer(*values) == found


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((f"for={REAL}",), REAL),
        ((f"for={FAKE}, for={REAL};proto=https;by=10.0.0.2",), REAL),
        ((f'for="{REAL}:4711"',), REAL),
        (('For="[2001:db8:cafe::17]:4711"',), "2001:db8:cafe::17"),
        ((f"for={FAKE}", f"for={REAL}"), REAL),
        ((f"for={REAL}, for=10.1.1.1",), REAL),
        (("for=unknown",), None),
        (("for=_hidden",), None),
        (("proto=https",), None),
        ((f"for={REAL};for={FAKE}",), None),
        ((f'for={REAL}, for="10.1.1.1',), None),
        # a quote that a client left open, in the same line as what the proxy wrote or in one before it
        ((f'for="{FAKE}, for={REAL}',), REAL),
        (('for="', f"for={REAL}"), REAL),
        (('for="', 'for="[2001:db8::17]:80", for=10.1.1.1'), "2001:db8::17"),
        ((f'for={FAKE};by="', f'for={REAL};by="a, b"'), REAL),
        (('for="\\"', f"for={REAL}"), REAL),
        (("for",), None),
    ],
)
def test_a_forwarded_header_is_read_as_its_rfc_says(values: tuple[str, ...], found: str | None) -> None:
    assert peer(*values, header="forwarded") == found


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
def test_whoever_is_no_trusted_proxy_is_not_believed(header: str) -> None:
    value = f"for={FAKE}" if header == "forwarded" else FAKE
    assert peer(value, client=(REAL, 1), header=header) == REAL
    assert peer(value, client=None, header=header) is None


def test_only_the_one_header_that_was_chosen_is_read() -> None:
    assert peer(client=("10.0.0.2", 1), forwarded=f"for={FAKE}", x_real_ip=FAKE) == "10.0.0.2"
    assert peer(header="forwarded", x_forwarded_for=FAKE) == "10.0.0.2"


def test_a_socket_of_the_machine_is_believed_when_the_setting_says_so() -> None:
    scope: Any = {"headers": [(b"x-forwarded-for", REAL.encode())], "client": None}
    assert str(find_peer(scope, Proxies.of(("unix",), "x-forwarded-for"))) == REAL
    assert find_peer(scope, Proxies.of((), "x-forwarded-for")) is None


@given(st.text(st.characters(max_codepoint=255), max_size=200), st.sampled_from(["x-forwarded-for", "forwarded"]))
def test_nothing_a_client_writes_to_the_left_changes_the_peer(text: str, header: str) -> None:
    """Nor hides it: in the line that the proxy appends to, or in one of its own."""
    appended = f"for={REAL}" if header == "forwarded" else REAL
    assert peer(f"{text},{appended}", header=header) == REAL
    assert peer(text, appended, header=header) == REAL


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
@pytest.mark.parametrize("piece", ["a", ",", "[", '"', "\\", "1.1.1.1,", "for=", "10.0.0.1,", ";"])
def test_a_header_of_ten_kilobytes_costs_little(header: str, piece: str) -> None:
    began = time.perf_counter()
    peer(piece * (10_000 // len(piece)), header=header)
    assert time.perf_counter() - began < 0.25


def test_an_address_is_parsed_alike_in_every_form() -> None:
    assert parse_address(" 192.0.2.1 ") == parse_address("192.0.2.1:80") == parse_address("::ffff:192.0.2.1")
    assert parse_address("") is None


@pytest.mark.parametrize("networks", ["10.0.0.1/8", "proxy.example", "10.0.0.0/33"])
def test_a_network_that_is_none_stops_the_start(networks: str) -> None:
    with pytest.raises(ValueError, match="trusted_proxies"):
        Settings(trusted_proxies=networks)
