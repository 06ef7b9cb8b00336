"""Whose address a request comes from."""

from ipaddress import ip_address

from starlette.requests import HTTPConnection

from audit_service.core.key_limits import Address


def peer_address(request: HTTPConnection) -> Address | None:
    """The address that a request comes from; None where it cannot be told, as over a Unix socket."""
    client = request.client
    try:
        address = ip_address(client.host if client is not None else "")
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
