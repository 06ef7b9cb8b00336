"""What is asked for in a new API key or viewer token, and how far it may reach: never further than the credential that asks."""

from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from audit_service.api.body import require_text
from audit_service.core.api_key import SCOPES
from audit_service.core.event import (
    PRINTABLE_PATTERN,
    EventLimits,
    check_limits,
    faults_of,
    parse_json,
    pointer,
    refuse_own_source,
)
from audit_service.core.key_limits import KeyLimits
from audit_service.core.redaction import Ruleset, holds_token
from audit_service.core.sight import STAFF_TYPES, Sight
from audit_service.errors import BeyondLimitsError, Fault, InvalidEventError
from audit_service.ingest import Log, Recipe, safe_id

BODY_LIMIT_BYTES = 262_144
SERVERS_LIMIT, CATEGORIES_LIMIT, NETWORKS_LIMIT, TYPES_LIMIT = 1000, 100, 100, 20
EXPIRES_SECONDS_DEFAULT, EXPIRES_SECONDS_MINIMUM, EXPIRES_SECONDS_MAXIMUM = 300, 30, 3600
STAFF_AS_DEFAULT = "Staff"
ALL: Literal["all"] = "all"


def _is_written_out(value: object) -> object:
    # pydantic would also take a number, or text of digits, for seconds since the epoch.
    if value is not None and not (isinstance(value, str) and "T" in value.upper()):
        raise ValueError("must be an RFC 3339 date-time with an offset")
    return value


def _is_storable(value: datetime) -> datetime:
    # Near the ends of the calendar an offset leads out of it.
    if not 2000 <= value.year < 9999:
        raise ValueError("must be a year from 2000 to 9998")
    return value


def _is_network(value: str) -> str:
    try:
        if "%" not in value:  # a zone is one host's own name of an interface
            return str(ip_network(value))
    except ValueError:
        pass
    raise ValueError("must be an address or a network such as 192.0.2.0/24, without bits beyond its prefix")


def _is_scope(value: str) -> str:
    if value not in SCOPES:
        raise ValueError(f"must be one of {', '.join(SCOPES)}")
    return value


def _is_lifetime(value: int) -> int:
    if not EXPIRES_SECONDS_MINIMUM <= value <= EXPIRES_SECONDS_MAXIMUM:
        raise ValueError(f"must be from {EXPIRES_SECONDS_MINIMUM} to {EXPIRES_SECONDS_MAXIMUM}")
    return value


Expiry = Annotated[AwareDatetime, BeforeValidator(_is_written_out), AfterValidator(_is_storable)]
Flag = Annotated[bool, Field(strict=True)]
Id = Annotated[str, Field(min_length=1, max_length=255, pattern=PRINTABLE_PATTERN)]
Kind = Annotated[str, Field(min_length=1, max_length=128)]
Label = Annotated[str, Field(min_length=1, max_length=200, pattern=PRINTABLE_PATTERN)]
Servers = Annotated[list[Id], Field(max_length=SERVERS_LIMIT)]
NetworkText = Annotated[str, Field(max_length=64), AfterValidator(_is_network)]
Scope = Annotated[str, AfterValidator(_is_scope)]
Lifetime = Annotated[
    int,
    Field(strict=True, json_schema_extra={"minimum": EXPIRES_SECONDS_MINIMUM, "maximum": EXPIRES_SECONDS_MAXIMUM}),
    AfterValidator(_is_lifetime),
]


class _Limited(BaseModel):
    """Limits that keys and tokens have alike. What is absent is as the credential that asks has it, unless it says otherwise."""

    model_config = ConfigDict(extra="forbid")
    global_events: Flag = Field(True, description="With events that have no server")
    categories: Annotated[list[Kind], Field(min_length=1, max_length=CATEGORIES_LIMIT)] | None = Field(
        None, description="Only events of these categories"
    )
    staff_types: Annotated[list[Kind], Field(min_length=1, max_length=TYPES_LIMIT)] | None = Field(
        None, description=f"With `staff_as`: which types of actor are staff; default: {', '.join(sorted(STAFF_TYPES))}"
    )
    audit_entries: Flag = Field(False, description="With the service's entries about itself, `audit.*`")


class NewKey(_Limited):
    """What a new key may do. Limits that are absent are those of the key that asks."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "node 7",
                    "scopes": ["ingest"],
                    "client": "node-7",
                    "server_ids": ["s1", "s9"],
                    "global_events": False,
                    "source_id": "node-7",
                    "networks": ["192.0.2.7/32", "2001:db8::/32"],
                }
            ]
        },
    )
    name: Annotated[str, Field(min_length=1, max_length=200)]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=16)]
    expires_at: Expiry | None = None
    client: Label | None = Field(
        None, description="Whose key it is: two live keys each, so that one can replace the other"
    )
    server_ids: Annotated[Servers, Field(min_length=1)] | None = Field(
        None, description="Only events of these servers, read and posted; with it, `global_events` is required"
    )
    ips: Flag = Field(True, description="Whether addresses are shown")
    emails: Flag = Field(True, description="Whether e-mail addresses are shown")
    staff_as: Label | None = Field(None, description="What is shown for the names of staff; null: the names")
    source_id: Annotated[Id, AfterValidator(refuse_own_source)] | None = Field(
        None, description="The one `source.id` that events posted have; filled in where absent"
    )
    networks: Annotated[list[NetworkText], Field(min_length=1, max_length=NETWORKS_LIMIT)] | None = Field(
        None, description="The networks that the key may be used from, by the peer's address"
    )


class OwnActor(BaseModel):
    """An actor as events name it: panels may number clients and administrators apart."""

    model_config = ConfigDict(extra="forbid")
    type: Kind
    id: Id


class NewToken(_Limited):
    """What a viewer token shows, and for how long."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"server_ids": ["s1", "s9"], "viewer": "u12", "expires_in_seconds": 300},
                {"server_ids": "all"},
            ]
        },
    )
    server_ids: Servers | Literal["all"] = Field(
        description="The servers whose events are shown; `all` that the key sees"
    )
    own_actions_of: Id | OwnActor | None = Field(
        None, description="Only what the actor of this id did, of any type; or of this type and id"
    )
    ips: Flag = Field(False, description="Whether addresses are shown")
    emails: Flag = Field(False, description="Whether e-mail addresses are shown")
    staff_as: Label | None = Field(
        STAFF_AS_DEFAULT, description="What is shown for the names of staff; null: the names"
    )
    export: Flag = Field(False, description="Whether what is shown may be exported")
    expires_in_seconds: Lifetime = EXPIRES_SECONDS_DEFAULT
    viewer: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None, description="Who will look, as the panel calls them; kept as a keyed hash"
    )


class Renewal(BaseModel):
    """How long a viewer token lasts from now on."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"expires_in_seconds": 300}]})
    expires_in_seconds: Lifetime = EXPIRES_SECONDS_DEFAULT


Model = TypeVar("Model", bound=BaseModel)


def parse_body(data: bytes, model: type[Model], what: str) -> Model:
    """The body as `model`. Raises InputError with pointers and never a value."""
    require_text(data)
    value = parse_json(data)
    check_limits(value, EventLimits())
    if not isinstance(value, dict):
        raise InvalidEventError(f"{what} breaks its schema", [Fault("must be an object", "")])
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidEventError(f"{what} breaks its schema", _faults(error, value)) from None


def _faults(error: ValidationError, value: dict[str, Any]) -> list[Fault]:
    """pydantic tries each branch of a union, and names it after the place. What stays are places in the body: each once, and none where a
    place inside it is wrong."""
    rules: dict[str, list[str]] = {}
    for fault in faults_of(error):
        details = rules.setdefault(_place(fault.pointer or "", value), [])
        if fault.detail not in details:
            details.append(fault.detail)
    innermost = [place for place in rules if not any(other.startswith(f"{place}/") for other in rules)]
    return [Fault(" or ".join(rules[place]), place) for place in innermost]


def _place(found: str, value: Any) -> str:
    kept: list[str | int] = []
    for part in found.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and name.isdigit() and int(name) < len(value):
            kept.append(int(name))
            value = value[int(name)]
        elif isinstance(value, dict) and not (kept and name not in value):
            kept.append(name)
            value = value.get(name)
    return pointer(kept)


def limits_of_key(wanted: NewKey, own: KeyLimits, recipe: Recipe, log: Log) -> KeyLimits:
    """The limits of a new key. Raises BeyondLimitsError where it asks for more than `own`, InvalidEventError for a secret."""
    given, seen = wanted.model_fields_set, own.sight
    if wanted.server_ids is not None and "global_events" not in given:
        detail = "is required with server_ids: whether events without a server belong to it"
        raise InvalidEventError("the key breaks its schema", [Fault(detail, "/global_events")])
    _refuse_secrets(wanted, "the key", recipe.rules)
    servers = None if wanted.server_ids is None else frozenset(safe_id(one, recipe, log) for one in wanted.server_ids)
    sight = Sight(
        server_ids=servers if "server_ids" in given else seen.server_ids,
        actor_id=seen.actor_id,
        actor_type=seen.actor_type,
        ips=wanted.ips if "ips" in given else seen.ips,
        emails=wanted.emails if "emails" in given else seen.emails,
        staff_as=wanted.staff_as if "staff_as" in given else seen.staff_as,
        **_alike(wanted, seen),
    )
    networks = None if wanted.networks is None else tuple(ip_network(network) for network in wanted.networks)
    asked = KeyLimits(
        sight,
        wanted.source_id if "source_id" in given else own.source_id,
        networks if "networks" in given else own.networks,
    )
    return _require_within(asked, own, {})


def limits_of_token(wanted: NewToken, own: KeyLimits, recipe: Recipe, log: Log) -> KeyLimits:
    """The limits of a new viewer token, which is used from anywhere and posts nothing. Raises as `limits_of_key`."""
    given, seen = wanted.model_fields_set, own.sight
    _refuse_secrets(wanted, "the token", recipe.rules)
    own_actor = wanted.own_actions_of
    actor_id, actor_type = (own_actor.id, own_actor.type) if isinstance(own_actor, OwnActor) else (own_actor, None)
    sight = Sight(
        server_ids=seen.server_ids
        if isinstance(wanted.server_ids, str)
        else frozenset(safe_id(one, recipe, log) for one in wanted.server_ids),
        actor_id=actor_id if "own_actions_of" in given else seen.actor_id,
        actor_type=actor_type if "own_actions_of" in given else seen.actor_type,
        ips=wanted.ips,
        emails=wanted.emails,
        staff_as=wanted.staff_as if "staff_as" in given else seen.staff_as or STAFF_AS_DEFAULT,
        **_alike(wanted, seen),
    )
    return _require_within(
        KeyLimits(sight), KeyLimits(seen), dict.fromkeys(("/actor_id", "/actor_type"), "/own_actions_of")
    )


def _alike(wanted: _Limited, seen: Sight) -> dict[str, Any]:
    """The members of a sight that keys and tokens have from the same members of the body."""
    given = wanted.model_fields_set
    categories = None if wanted.categories is None else frozenset(wanted.categories)
    default_types = STAFF_TYPES if seen.staff_as is None else seen.staff_types
    return {
        "global_events": wanted.global_events if "global_events" in given else seen.global_events,
        "categories": categories if "categories" in given else seen.categories,
        "staff_types": default_types if wanted.staff_types is None else frozenset(wanted.staff_types),
        "own_entries": wanted.audit_entries,
    }


def _require_within(asked: KeyLimits, own: KeyLimits, spelled: dict[str, str]) -> KeyLimits:
    faults = [Fault(fault.detail, spelled.get(fault.pointer or "", fault.pointer)) for fault in asked.beyond(own)]
    if faults:
        raise BeyondLimitsError("a credential cannot hand out more than it has", faults)
    return asked.within(own)


def _refuse_secrets(wanted: NewKey | NewToken, what: str, rules: Ruleset) -> None:
    """These are stored and shown as they are: what is compared with events cannot be redacted. Raises InvalidEventError."""
    faults = []
    for name in ("client", "source_id", "staff_as", "own_actions_of", "categories", "staff_types"):
        value = getattr(wanted, name, None)
        value = [value.type, value.id] if isinstance(value, OwnActor) else value
        texts = [value] if isinstance(value, str) else value or []
        if any(holds_token(text, rules) for text in texts):
            faults.append(Fault("must not hold a secret", f"/{name}"))
    if faults:
        raise InvalidEventError(f"{what} breaks its schema", faults)
