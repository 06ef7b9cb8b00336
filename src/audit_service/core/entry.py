r"""From an event to what is sealed: body, disclosures, projections (DESIGN 3.2).

- *Body*: canonical JSON of what is not personal, with a nonce and, under `sd`, one commitment for each disclosure.
- *Disclosure*: 32 bytes of salt and the canonical JSON text of the value, stored exactly as hashed: `salt || value`.
  Its commitment is SHA-256("audit-service/disclosure/v1\n" || group || "\n" || salt || value).
- *Projection*: typed copies for queries, a function of body and disclosures alone, so that verification can compare.

>>> commitment("ip", bytes(range(3, 35)), '"203.0.113.9"').hex()[:16]
'552f8c4ffa2137d0'
"""

import base64
import ipaddress
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, cast

from audit_service.core.canonical import JSONValue, canonical_bytes, canonical_text
from audit_service.core.folding import fold

# The order is the order of the columns `d_<group>`; verifiers accept any group name.
GROUPS = ("actor", "actor_email", "on_behalf_of", "ip", "context", "target", "text", "metadata", "changes")
SALT_BYTES = 32
NONCE_BYTES = 16
ENTROPY_BYTES = NONCE_BYTES + SALT_BYTES * len(GROUPS)
_SALT_OF = {
    group: slice(NONCE_BYTES + SALT_BYTES * position, NONCE_BYTES + SALT_BYTES * (position + 1))
    for position, group in enumerate(GROUPS)
}

JSONObject = dict[str, JSONValue]


class Projection(NamedTuple):
    """The typed columns that queries filter by. Field names are column names; None where the event says nothing."""

    id: str | None
    occurred_at: datetime | None
    source_seq: int | None
    action: str | None
    verb: str | None
    category: str | None
    outcome: str | None
    actor_type: str | None
    actor_id: str | None
    actor_name: str | None
    actor_email: str | None
    actor_role: str | None
    actor_keys: list[str] | None
    target_type: str | None
    target_id: str | None
    target_name: str | None
    server_id: str | None
    ip: IPv4Address | IPv6Address | None
    session: str | None
    request_id: str | None
    source_id: str | None
    paths: list[str] | None
    search: str | None


class Prepared(NamedTuple):
    """Everything of an entry that does not depend on its place in the chain. `disclosures`: group → `salt || value`."""

    body: str
    disclosures: dict[str, bytes]
    projection: Projection


def commitment(group: str, salt: bytes, value: str) -> bytes:
    """What the body holds of a disclosure."""
    return disclosure_hash(group, salt + value.encode())


def disclosure_hash(group: str, salted_value: bytes) -> bytes:
    """The commitment of a disclosure as stored (`salt || value`)."""
    return sha256(disclosure_prefix(group) + salted_value).digest()


def disclosure_prefix(group: str) -> bytes:
    """What is hashed before a disclosure of this group."""
    return b"audit-service/disclosure/v1\n%b\n" % group.encode()


_PREFIX_OF = {group: disclosure_prefix(group) for group in GROUPS}


def prepare(
    event: Mapping[str, JSONValue],
    changes: list[JSONObject],
    fields: list[str],
    entropy: bytes,
    write: Callable[[JSONValue], bytes] = canonical_bytes,
) -> Prepared:
    """Body, disclosures and projection of a redacted event with its defaults filled in.

    `entropy` is ENTROPY_BYTES of fresh randomness: the nonce, then a salt for each possible group. `fields` are the
    first path segments of what changed. `write` makes canonical JSON: `plain_bytes` for an event that is known to be plain. Raises
    CanonicalError for a value JSON cannot carry exactly.
    """
    values = disclosed_values(event, changes)
    disclosures: dict[str, bytes] = {}
    commitments: JSONObject = {}
    for group, value in values.items():
        salted = entropy[_SALT_OF[group]] + write(value)
        disclosures[group] = salted
        commitments[group] = sha256(_PREFIX_OF[group] + salted).hexdigest()
    body = body_members(event, fields, commitments, entropy[:NONCE_BYTES])
    return Prepared(write(body).decode(), disclosures, project(body, values))


def disclosed_values(event: Mapping[str, JSONValue], changes: list[JSONObject]) -> JSONObject:
    """Group → value for each disclosure group that has anything."""
    actor = _object(event.get("actor"))
    target = _object(event.get("target"))
    context = _object(event.get("context"))
    related = event.get("related")
    values: dict[str, JSONValue] = {
        "actor": _pick(actor, ("id", "name", "role")),
        "actor_email": actor.get("email"),
        "on_behalf_of": event.get("on_behalf_of"),
        "ip": context.get("ip"),
        "context": _pick(context, ("user_agent", "session_id", "request_id", "traceparent")),
        "target": _pick(target, ("id", "name")) | ({"related": related} if related else {}),
        "text": _pick(event, ("description", "reason")),
        "metadata": event.get("metadata"),
        "changes": cast("JSONValue", changes),
    }
    return {group: value for group, value in values.items() if value is not None and value not in ({}, [])}


def body_members(
    event: Mapping[str, JSONValue], fields: list[str], commitments: JSONObject, nonce: bytes
) -> JSONObject:
    """The body's members; absent and null ones are left out. Nothing personal: no names, no ids of people."""
    body: JSONObject = {"v": 1, "nonce": base64.b64encode(nonce).decode()}
    body |= _pick(event, ("id", "action", "verb", "category", "occurred_at", "server_id", "outcome", "source"))
    for member, place in (("actor_type", "actor"), ("target_type", "target")):
        kind = _object(event.get(place)).get("type")
        if kind is not None:
            body[member] = kind
    if fields:
        body["fields"] = cast("JSONValue", fields)
    if commitments:
        body["sd"] = commitments
    return body


def project(body: JSONObject, values: JSONObject) -> Projection:
    """The query columns that follow from a body and the values of its surviving disclosures."""
    actor = _object(values.get("actor"))
    target = _object(values.get("target"))
    context = _object(values.get("context"))
    source = _object(body.get("source"))
    changes = cast("list[JSONObject]", values.get("changes") or [])
    actor_id, actor_name = _text(actor.get("id")), _text(actor.get("name"))
    actor_email, ip = _text(values.get("actor_email")), _text(values.get("ip"))
    occurred_at = _text(body.get("occurred_at"))
    # By position: it takes half the time, and this is done for every entry that is sealed and that is verified.
    return Projection(
        _text(body.get("id")),
        None if occurred_at is None else parse_time(occurred_at),
        cast("int | None", source.get("seq")),
        _text(body.get("action")),
        _text(body.get("verb")),
        _text(body.get("category")),
        _text(body.get("outcome")),
        _text(body.get("actor_type")),
        actor_id,
        actor_name,
        actor_email,
        _text(actor.get("role")),
        [*_actor_keys(actor_id, actor_name, actor_email)] or None,
        _text(body.get("target_type")),
        _text(target.get("id")),
        _text(target.get("name")),
        _text(body.get("server_id")),
        None if ip is None else index_address(ip),
        _text(context.get("session_id")),
        _text(context.get("request_id")),
        _text(source.get("id")),
        [cast("str", change["path"]) for change in changes] or None,
        search_text(body, values),
    )


@lru_cache(maxsize=4096)  # few people act, and each of them often
def _actor_keys(*keys: str | None) -> tuple[str, ...]:
    return tuple(sorted({fold(key) for key in keys if key}))


@lru_cache(maxsize=4096)
def index_address(text: str) -> IPv4Address | IPv6Address:
    """An address as the index holds it: no zone, and an IPv4-mapped IPv6 address as IPv4. Raises ValueError."""
    address = ipaddress.ip_address(text)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.scope_id is not None:
            return IPv6Address(int(address))
    return address


@lru_cache(maxsize=256)  # what is appended together is recorded at the same time
def format_time(at: datetime) -> str:
    """RFC 3339 in UTC with six decimals and `Z`, the one spelling that is hashed."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(text: str) -> datetime:
    """The inverse of `format_time`."""
    return datetime.fromisoformat(text)


def search_text(body: JSONObject, values: JSONObject) -> str | None:
    """Names, e-mails, ids, texts and changed values, folded, a line each: what free text search looks through."""
    parts = [*map(values.get, _SEARCHED), body.get("id"), body.get("server_id")]
    for change in cast("list[JSONObject]", values.get("changes") or []):
        parts += change.get("old"), change.get("new")
    words: list[str] = []
    for part in parts:
        if part is not None:
            _add_scalars(part, words)
    # Sorted, because a verifier meets the members in canonical order, not in the sender's.
    # Folding goes letter by letter, so all lines are folded at once.
    return fold("\n".join(sorted(set(words)))) or None


_SEARCHED = ("actor", "actor_email", "on_behalf_of", "target", "text")


def _add_scalars(value: JSONValue, words: list[str]) -> None:
    """Every text and number within a value."""
    kind = type(value)
    if kind is str:
        words.append(cast("str", value))
    elif kind is dict:
        for member in cast("JSONObject", value).values():
            _add_scalars(member, words)
    elif kind is list:
        for member in cast("list[JSONValue]", value):
            _add_scalars(member, words)
    elif kind is int:
        words.append(repr(value))
    elif kind is float:
        # As the canonical text spells it: 1.0 comes back as 1 when a verifier parses the stored disclosure.
        words.append(canonical_text(value))


def _pick(value: Mapping[str, JSONValue], members: tuple[str, ...]) -> JSONObject:
    return {member: value[member] for member in members if value.get(member) is not None}


def _object(value: JSONValue) -> JSONObject:
    return value if isinstance(value, dict) else {}


def _text(value: JSONValue) -> str | None:
    return value if isinstance(value, str) else None
