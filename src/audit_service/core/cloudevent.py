"""CloudEvents 1.0 as events of ours (github.com/cloudevents/spec, JSON and HTTP bindings): structured, batched and binary.

- `source` and `id` together are the event's id: CloudEvents promises no more than that the pair is unique.
- `type` is the action, `time` is occurred_at, `source` is source.id, `subject` is the target's id unless the data names a target.
- `data` that is an event of ours (only members of an event, one of them telling: an actor, a target, rows …) is taken as that
  event; the attributes go before its id, action and time, and what they replace stays in `metadata.data`. Anything else becomes
  `metadata.data` as a whole.
- `data_base64` is decoded: JSON when the envelope says so, else text; only what is neither stays encoded, as `{"base64": …}`.
- Extension attributes become `metadata.cloudevents`.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import cast
from urllib.parse import unquote

from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject
from audit_service.core.event import MEMBERS, parse_json
from audit_service.errors import Fault, InvalidEventError, MalformedError

_REQUIRED = ("specversion", "id", "source", "type")
_DATA = frozenset({"data", "data_base64"})
_KNOWN = frozenset({*_REQUIRED, *_DATA, "subject", "time", "datacontenttype", "dataschema"})
_BROKEN = "the CloudEvent breaks its specification"
ID_CHARACTERS = 255
# Business data may well be called id, category or reason; it is an event only with a member that nothing else is called.
_TELLING = frozenset({"actor", "on_behalf_of", "target", "before", "after", "changes", "server_id", "context"})


def is_binary(headers: Mapping[str, str]) -> bool:
    """Whether a request carries its attributes in `ce-` headers."""
    return "ce-specversion" in headers


def is_json(media_type: str) -> bool:
    """Whether data of this media type, without options, is JSON."""
    return media_type == "application/json" or media_type.endswith("+json")


def from_structured(envelope: JSONValue) -> JSONObject:
    """The event of one envelope. Raises InvalidEventError naming the missing or malformed attributes, MalformedError for data that is
    not what its type says."""
    if not isinstance(envelope, dict):
        raise InvalidEventError("a CloudEvent is a JSON object", [Fault("must be an object", "")])
    # Null is how JSON leaves an attribute out.
    attributes: JSONObject = {
        name: value for name, value in envelope.items() if name not in _DATA and value is not None
    }
    data: JSONValue = envelope.get("data")
    if envelope.get("data_base64") is not None:
        if data is not None:
            raise InvalidEventError(_BROKEN, [Fault("must not stand beside data", "/data_base64")])
        data = _decoded(envelope["data_base64"], attributes.get("datacontenttype"))
    return _event(attributes, data)


def _decoded(encoded: JSONValue, data_type: JSONValue) -> JSONValue:
    # Left encoded, secrets inside would pass the redaction.
    try:
        data = base64.b64decode(cast("str", encoded), validate=True)
    except (TypeError, binascii.Error, ValueError):
        raise InvalidEventError(_BROKEN, [Fault("must be base64", "/data_base64")]) from None
    media_type = data_type.partition(";")[0].strip().lower() if isinstance(data_type, str) else "application/json"
    if is_json(media_type):
        try:
            return parse_json(data)
        except MalformedError:
            if data_type is not None:
                raise
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": encoded}


def from_binary(headers: Mapping[str, str], data: JSONValue) -> JSONObject:
    """The event of a request in binary mode: attributes from its headers; `data` is its parsed body."""
    attributes: JSONObject = {
        name[3:]: _header(value) for name, value in headers.items() if name.startswith("ce-") and len(name) > 3
    }
    return _event(attributes, data)


def _header(value: str) -> str:
    """A header's value as older and newer SDKs write it: a quoted string is unescaped, then the text percent-decoded once."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return unquote(value)


def _event(attributes: JSONObject, data: JSONValue) -> JSONObject:
    faults = [
        Fault("is required, as text", f"/{name}")
        for name in _REQUIRED
        if not isinstance(attributes.get(name), str) or not attributes[name]
    ]
    if not faults and attributes["specversion"] != "1.0":
        faults.append(Fault("must be 1.0", "/specversion"))
    if faults:
        raise InvalidEventError(_BROKEN, faults)
    source = cast("str", attributes["source"])
    given: JSONObject = {"id": _id(source, cast("str", attributes["id"])), "action": attributes["type"]}
    if "time" in attributes:
        given["occurred_at"] = attributes["time"]
    event: JSONObject = {}
    if isinstance(data, dict) and data.keys() <= MEMBERS and data.keys() & _TELLING:
        event.update(data)
        replaced = {name: data[name] for name in given if data.get(name) not in (None, given[name])}
        if replaced:
            _add_metadata(event, "data", replaced)
    elif data is not None:
        event["metadata"] = {"data": data}
    event |= given
    if event.get("source") is None:
        event["source"] = {"id": _short(source)}
    if attributes.get("subject") and event.get("target") is None:
        event["target"] = {"id": attributes["subject"]}
    extensions: JSONObject = {name: value for name, value in attributes.items() if name not in _KNOWN}
    if extensions:
        _add_metadata(event, "cloudevents", extensions)
    return event


def _add_metadata(event: JSONObject, name: str, value: JSONObject) -> None:
    metadata = event.get("metadata")
    if metadata is None or metadata == []:
        metadata = {}
    if isinstance(metadata, dict):  # what else it may be is refused later, and must not get lost here
        event["metadata"] = {**metadata, name: value}


def _id(source: str, identifier: str) -> str:
    return _short(f"{source}#{identifier}")


def _short(text: str) -> str:
    # Hashed, not cut: half a secret is not recognised as one.
    return text if len(text) <= ID_CHARACTERS else "sha256:" + sha256(text.encode()).hexdigest()
