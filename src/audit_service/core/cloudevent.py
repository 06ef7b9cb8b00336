"""CloudEvents 1.0 as events of ours (github.com/cloudevents/spec, JSON and HTTP bindings): structured, batched and binary.

- `source` and `id` together are the event's id: CloudEvents promises no more than that the pair is unique.
- `type` is the action, `time` is occurred_at, `source` is source.id, `subject` is the target's id unless the data names a target.
- `data` that is an event of ours without id and time (only members of an event) is taken as that event; anything else becomes
  `metadata.data`. Extension attributes become `metadata.cloudevents`.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import cast
from urllib.parse import unquote

from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject
from audit_service.core.event import MEMBERS
from audit_service.errors import Fault, InvalidEventError

_REQUIRED = ("specversion", "id", "source", "type")
_KNOWN = frozenset({*_REQUIRED, "subject", "time", "datacontenttype", "dataschema", "data", "data_base64"})
ID_CHARACTERS = 255


def is_binary(headers: Mapping[str, str]) -> bool:
    """Whether a request carries its attributes in `ce-` headers."""
    return "ce-specversion" in headers


def from_structured(envelope: JSONValue) -> JSONObject:
    """The event of one envelope. Raises InvalidEventError naming the missing or malformed attributes."""
    if not isinstance(envelope, dict):
        raise InvalidEventError("a CloudEvent is a JSON object", [Fault("must be an object", "")])
    attributes = {name: value for name, value in envelope.items() if name not in {"data", "data_base64"}}
    data: JSONValue = envelope.get("data")
    if "data_base64" in envelope:
        data = {"base64": envelope["data_base64"]}
    return _event(attributes, data)


def from_binary(headers: Mapping[str, str], data: JSONValue) -> JSONObject:
    """The event of a request in binary mode: attributes from its headers, percent-decoded; `data` is its parsed body."""
    attributes: JSONObject = {
        name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-") and len(name) > 3
    }
    return _event(attributes, data)


def _event(attributes: JSONObject, data: JSONValue) -> JSONObject:
    faults = [
        Fault("is required, as text", f"/{name}")
        for name in _REQUIRED
        if not isinstance(attributes.get(name), str) or not attributes[name]
    ]
    if not faults and attributes["specversion"] != "1.0":
        faults.append(Fault("must be 1.0", "/specversion"))
    if faults:
        raise InvalidEventError("the CloudEvent breaks its specification", faults)
    source = cast("str", attributes["source"])
    event: JSONObject = {}
    if isinstance(data, dict) and data and data.keys() <= MEMBERS:
        event.update(data)
    elif data is not None:
        event["metadata"] = {"data": data}
    event |= {"id": _id(source, cast("str", attributes["id"])), "action": attributes["type"]}
    event.setdefault("source", {"id": _short(source)})
    if attributes.get("time") is not None:
        event["occurred_at"] = attributes["time"]
    if attributes.get("subject") and "target" not in event:
        event["target"] = {"id": cast("str", attributes["subject"])}
    extensions: JSONObject = {name: value for name, value in attributes.items() if name not in _KNOWN}
    if extensions:
        metadata = event.get("metadata")
        event["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), "cloudevents": extensions}
    return event


def _id(source: str, identifier: str) -> str:
    return _short(f"{source}#{identifier}")


def _short(text: str) -> str:
    # Hashed, not cut: half a secret is not recognised as one.
    return text if len(text) <= ID_CHARACTERS else "sha256:" + sha256(text.encode()).hexdigest()
