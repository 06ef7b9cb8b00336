"""What the holder of a credential may add to a log. As with what they may see, it comes from the credential alone.

>>> posting = Posting(server_ids=frozenset({"s1"}), global_events=False)
>>> posting.faults({"action": "server.created", "server_id": "s2"}, category="server")
[Fault(detail='is not a server that the credential may post events of', pointer='/server_id', parameter=None)]
"""

from dataclasses import dataclass

from audit_service.core.entry import JSONObject
from audit_service.core.sight import OWN_PREFIX
from audit_service.errors import Fault


@dataclass(frozen=True, slots=True)
class Posting:
    """Which events may be posted: those of some servers, with or without events of no server, of some categories, from one source. None
    for all; all limits hold together. An event that names no source is from `source_id`."""

    server_ids: frozenset[str] | None = None
    global_events: bool = True
    categories: frozenset[str] | None = None
    source_id: str | None = None

    @property
    def is_limited(self) -> bool:
        """Whether there is any event that may not be posted."""
        return self != _ANY

    def faults(self, event: JSONObject, category: str) -> list[Fault]:
        """Where an event is not one that may be posted; never a value. `category` is the event's own or the one derived for it."""
        found = []
        server_id = event.get("server_id")
        if server_id is None and not self.global_events:
            found.append(Fault("is required: the credential may not post events without a server", "/server_id"))
        if server_id is not None and self.server_ids is not None and server_id not in self.server_ids:
            found.append(Fault("is not a server that the credential may post events of", "/server_id"))
        if self.categories is not None and category not in self.categories:
            found.append(Fault("is not a category that the credential may post events of", "/category"))
        if self.source_id is not None and _source_id(event) not in {None, self.source_id}:
            found.append(Fault("is not the source that the credential may post events from", "/source/id"))
        return found

    def admits(self, body: JSONObject) -> bool:
        """Whether an entry, by its body, is one that may have been posted."""
        if str(body["action"]).startswith(OWN_PREFIX) or self.faults(body, str(body["category"])):
            return False
        return self.source_id is None or _source_id(body) == self.source_id  # it was filled in


_ANY = Posting()


def _source_id(event: JSONObject) -> object:
    source = event.get("source")
    return source.get("id") if isinstance(source, dict) else None
