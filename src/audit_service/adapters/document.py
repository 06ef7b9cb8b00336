"""A JSON document of a log shipper → an event.

A document that is an event of ours (it has `action`) is taken as one, with a few spellings that panels use: `old` and `new` for the rows,
`ip`, `user_agent`, `timestamp`, a bare name as `actor`. A text that is such a document (`message` of a syslog line, also behind the
cookie `@cee:`, or the body of an OpenTelemetry record) is opened. Everything without a place of its own is kept in metadata.
"""

from collections.abc import Callable, Mapping
from typing import Final, cast, get_args

from audit_service.adapters.draft import TEXTS, Draft
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject
from audit_service.core.event import parse_json
from audit_service.core.verb import Verb
from audit_service.errors import InputError

_COOKIE: Final = "@cee:"
_PARTIES: Final = ("actor", "on_behalf_of", "target", "source")
_WORDS: Final[dict[str, frozenset[str]]] = {
    "verb": frozenset({*get_args(Verb), "INSERT"}),
    "outcome": frozenset({"success", "failure", "unknown"}),
    "partial": frozenset({"none", "after", "before", "both"}),
}
_TEXTS: Final = ("id", "category", "server_id", "reason", "description")
_ROWS: Final = {"before": "before", "old": "before", "after": "after", "new": "after"}
_TIMES: Final = ("occurred_at", "timestamp", "@timestamp", "time", "timegenerated", "timereported")
# Other spellings of members of the context.
_CONTEXT: Final = {"user_agent": "user_agent", "request_id": "request_id", "session_id": "session_id"}
_RELATED: Final = frozenset({"type", "id", "name"})
RELATED_LIMIT: Final = 100
_MESSAGES: Final = ("message", "msg", "MESSAGE")


def is_event(value: JSONValue) -> bool:
    """Whether a document is an event of ours, or near enough."""
    return isinstance(value, dict) and isinstance(value.get("action"), str)


def event_in_text(text: JSONValue) -> JSONObject | None:
    """The event that a text holds as JSON, if it does."""
    if not isinstance(text, str):
        return None
    bare = text.strip().removeprefix(_COOKIE).strip()
    if not bare.startswith("{") or '"action"' not in bare:
        return None
    try:
        value = parse_json(bare.encode("utf-8", "surrogatepass"))
    except InputError:
        return None
    return cast("JSONObject", value) if is_event(value) else None


def put_document(draft: Draft, document: JSONObject) -> None:
    """Every member of a document into the draft; with `action` or a message that is an event, as that event."""
    if not is_event(document):
        document = _opened(draft, document)
    if is_event(document):
        _put_event(draft, document)
    else:
        _put_plain(draft, document)


def _opened(draft: Draft, document: JSONObject) -> JSONObject:
    """The event inside the document's message, with the rest of the document in metadata; else the document itself."""
    for name in _MESSAGES:
        inner = event_in_text(document.get(name))
        if inner is not None:
            for other, value in document.items():
                if other in _MESSAGES:
                    continue
                if other in _TIMES and not any(time in inner for time in _TIMES):
                    draft.put_time(value, other)
                else:
                    draft.keep(other, value)
            return inner
    return document


def _put_event(draft: Draft, document: JSONObject) -> None:
    draft.put_action(document["action"])
    _put_time(draft, document)
    for name, value in document.items():
        if name != "action" and name not in _TIMES and value is not None:
            _put_member(draft, name, value)


def _put_time(draft: Draft, document: JSONObject) -> None:
    """The first time counts; what else is called one stays in metadata."""
    named = [name for name in _TIMES if document.get(name) not in (None, "")]
    for index, name in enumerate(named):
        if index == 0:
            draft.put_time(document[name], name)
        else:
            draft.keep(name, document[name])


def _put_member(draft: Draft, name: str, value: JSONValue) -> None:
    """One member that is not null."""
    put = _MEMBERS.get(name)
    if put is not None:
        put(draft, name, value)
    elif name in _CONTEXT and not isinstance(value, dict | list):
        draft.put(f"context.{_CONTEXT[name]}", value)
    else:
        draft.keep(name, value)


def _put_text(draft: Draft, name: str, value: JSONValue) -> None:
    draft.put(name, value)


def _put_word(draft: Draft, name: str, value: JSONValue) -> None:
    if isinstance(value, str) and value in _WORDS[name]:
        draft.put_raw(name, value)
    else:
        draft.keep(name, value)


def _put_party(draft: Draft, name: str, value: JSONValue) -> None:
    """actor, on_behalf_of, target, source: an object of texts, or just a name."""
    if not isinstance(value, dict):
        draft.put(f"{name}.id" if name == "source" else f"{name}.name", value)
        return
    seq = value.get("seq")
    others: JSONObject = {}
    for member, part in value.items():
        if f"{name}.{member}" in TEXTS:
            draft.put(f"{name}.{member}", part)
        elif not (name == "source" and member == "seq"):
            others[member] = part
    if name == "source" and isinstance(seq, int) and not isinstance(seq, bool) and 0 <= seq < 2**63:
        draft.put_part("source", "seq", seq)
    elif name == "source" and seq is not None:
        others["seq"] = seq
    if others:
        draft.keep(name, others)


def _put_context(draft: Draft, name: str, value: JSONValue) -> None:
    if not isinstance(value, dict):
        draft.keep(name, value)
        return
    others: JSONObject = {}
    for member, part in value.items():
        if member == "ip":
            draft.put_ip(part)
        elif f"context.{member}" in TEXTS:
            draft.put(f"context.{member}", part)
        else:
            others[member] = part
    if others:
        draft.keep(name, others)


def _put_row(draft: Draft, name: str, value: JSONValue) -> None:
    """A row is an object (PHP writes an empty one as []); anything else under such a name is no row."""
    side = _ROWS[name]
    if (isinstance(value, dict) or value == []) and not draft.has(side):
        draft.put_raw(side, value)
    else:
        draft.keep(name, value)


def _put_changes(draft: Draft, name: str, value: JSONValue) -> None:
    """Ready-made changes are checked where all are. As metadata they would be judged by the wrong names."""
    if isinstance(value, list):
        draft.put_raw(name, value)
    else:
        draft.keep(name, value)


def _put_related(draft: Draft, name: str, value: JSONValue) -> None:
    related = value if isinstance(value, list) and len(value) <= RELATED_LIMIT else None
    if related is not None and all(isinstance(item, dict) and _RELATED.issuperset(item) for item in related):
        draft.put_raw(name, related)
    else:
        draft.keep(name, value)


def _put_metadata(draft: Draft, name: str, value: JSONValue) -> None:
    if isinstance(value, dict):
        for member, part in value.items():
            draft.keep(member, part)
    elif value != []:
        draft.keep(name, value)


def _put_plain(draft: Draft, document: Mapping[str, JSONValue]) -> None:
    """A document that says nothing of an action: its text is the description, the rest metadata."""
    _put_time(draft, dict(document))
    for name, value in document.items():
        if name in _TIMES or value is None:
            continue
        if name in _MESSAGES and isinstance(value, str) and not draft.has("description"):
            draft.put("description", value)
        else:
            draft.keep(name, value)


_MEMBERS: Final[dict[str, Callable[[Draft, str, JSONValue], None]]] = {
    **dict.fromkeys(_TEXTS, _put_text),
    **dict.fromkeys(_WORDS, _put_word),
    **dict.fromkeys(_PARTIES, _put_party),
    **dict.fromkeys(_ROWS, _put_row),
    "context": _put_context,
    "ip": lambda draft, _, value: draft.put_ip(value),
    "changes": _put_changes,
    "related": _put_related,
    "metadata": _put_metadata,
}
