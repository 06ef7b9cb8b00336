"""How requests become notes of the service about itself (`audit_service.watch`).

Routes call `note` for what they did, and `ending` for what they stream. Refusals and reads are seen from outside every route, by
`look_back`: no route can forget them.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from fastapi import Request

from audit_service.api.dependencies import EVENTS_REFUSED, REFUSED, Refused, Service, service_of
from audit_service.api.logs import METHODS, Scope, route_of
from audit_service.api.peer import address_of
from audit_service.api.rates import CREDENTIAL
from audit_service.core.canonical import JSONValue
from audit_service.core.forgetting import NOTED_TYPE
from audit_service.core.own_event import Actor, Target
from audit_service.ending import Ending
from audit_service.store.credentials import Credential
from audit_service.watch import Place, own_event

# They have entries of their own, or tell nothing of what was done.
_NOT_READ = ("/v1/export", "/v1/evidence", "/v1/chain")
_REFUSED_STATUSES = frozenset({401, 403})
# What a path names: its parameter → the type of the target.
_NAMED = {
    "event_id": "event",
    "server_id": "server",
    "target_id": NOTED_TYPE,
    "key_id": "api_key",
    "token_id": "viewer_token",
    "request_id": "request",
}


def peer_of(scope: Scope) -> str | None:
    """The address that a request comes from; None where it cannot be told, as on a Unix socket."""
    address = address_of(scope)
    return None if address is None else str(address)


def place_of(credential: Credential) -> Place:
    """The log of a credential's tenant."""
    return Place(credential.log_id, credential.log_key)


def holder_of(credential: Credential) -> Actor:
    """Who holds a credential: its kind and public id."""
    return Actor(credential.kind, credential.key_id)


async def note(
    request: Request,
    credential: Credential,
    action: str,
    *,
    target: Target | None = None,
    metadata: Mapping[str, JSONValue] | None = None,
) -> None:
    """Note what the holder of the credential did, in its tenant's log: durable when it returns. To be called between the act's commit and
    the answer. Raises UnavailableError, ClockError: then the caller is not to be told that it was done."""
    event = own_event(action, holder_of(credential), target=target, ip=peer_of(request.scope), metadata=metadata)
    await service_of(request).watch.note(place_of(credential), event)


def ending(request: Request, credential: Credential, action: str, **metadata: JSONValue) -> Ending:
    """For something that begins now."""
    watch, actor = service_of(request).watch, holder_of(credential)
    return Ending(watch, place_of(credential), action, actor, peer_of(request.scope), metadata)


async def noted(end: Ending, pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The same pieces. Their end is noted before the client is told of it: what closes the body is sent when this has returned."""
    size_bytes = 0
    with end.unless_complete():
        async with aclosing(pieces):
            async for piece in pieces:
                size_bytes += len(piece)
                end.metadata["bytes"] = size_bytes
                yield piece
        await end.complete()


def filters_in(request: Request, *others: str) -> list[JSONValue]:
    """The names of the filters of a query: what it was about, and never what was searched for."""
    return [*sorted(set(request.query_params).difference(others))]


def look_back(scope: Scope, status: int) -> None:
    """After an answer: note what has to be of the request. Never waits, and never fails for lack of a database."""
    state = scope.get("state") or {}
    refused = status in _REFUSED_STATUSES
    if not (refused or EVENTS_REFUSED in state or (scope["method"] == "GET" and status < 400)):
        return  # an event that was sent: nothing is noted of it, and nothing is to be paid for that
    service = getattr(getattr(scope.get("app"), "state", None), "service", None)
    if not isinstance(service, Service):
        return
    credential = state.get(CREDENTIAL)
    if refused or EVENTS_REFUSED in state:
        _look_back_refused(service, scope, credential)
    elif service.settings.log_reads and credential is not None and _is_read(scope):
        _look_back_read(service, scope, credential)


def _look_back_refused(service: Service, scope: Scope, credential: Credential | None) -> None:
    refused = (scope.get("state") or {}).get(REFUSED)
    if credential is not None:
        reason = "not allowed" if refused is None else refused.reason
        refused = Refused(reason, place_of(credential), holder_of(credential))
    elif refused is None:
        refused = Refused("not authenticated")
    service.watch.refuse(
        refused.place,
        "audit.auth.failed" if credential is None else "audit.access.denied",
        reason=refused.reason,
        route=f"{scope['method'] if scope['method'] in METHODS else 'other'} {route_of(scope)}",
        ip=peer_of(scope),
        actor=refused.actor,
        count=(scope.get("state") or {}).get(EVENTS_REFUSED, 1),
    )


def _is_read(scope: Scope) -> bool:
    route = route_of(scope)
    return scope["method"] == "GET" and route.startswith("/v1/") and not route.startswith(_NOT_READ)


def _look_back_read(service: Service, scope: Scope, credential: Credential) -> None:
    given = scope.get("path_params", {})
    named = next(((kind, given[name]) for name, kind in _NAMED.items() if name in given), None)
    metadata: dict[str, JSONValue] = {"route": route_of(scope), "filters": filters_in(Request(scope))}
    event = own_event(
        "audit.read",
        holder_of(credential),
        target=None if named is None else Target(named[0], str(named[1])),
        ip=peer_of(scope),
        metadata=metadata,
    )
    service.watch.later(place_of(credential), event)
