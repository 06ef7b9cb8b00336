"""Two tenants and three servers whose events have nothing in common: every value of an event holds the word of the place it belongs to,
so that a word of another place anywhere in an answer is a leak."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.support.api import Api

Event = dict[str, Any]
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVENTS = 5


@dataclass(frozen=True, slots=True)
class Place:
    """Where events happen: the word in all of them, their server (None: global), their network and their hour."""

    word: str
    server_id: str | None
    network: str
    hour: int

    @property
    def address(self) -> str:
        """The address that everything here came from."""
        return self.network + "7"

    def at(self, number: int) -> datetime:
        """When the event of a number occurred: in an hour that is this place's alone."""
        return START + timedelta(hours=self.hour, minutes=number)

    def event(self, number: int) -> Event:
        """One event. Its neighbours change the same target."""
        word = self.word
        return {
            "id": f"{word}-{number}",
            "occurred_at": self.at(number).isoformat(),
            "action": f"{word}.updated",
            "category": f"{word}-category",
            "verb": "UPDATE",
            "actor": {
                "type": f"{word}-people",
                "id": f"{word}-actor",
                "name": f"{word} name",
                "email": f"someone@{word}.test",
                "role": f"{word}-role",
            },
            "target": {"type": f"{word}-kind", "id": f"{word}-target", "name": f"the {word} target"},
            "related": [{"type": f"{word}-kind", "id": f"{word}-related"}],
            "server_id": self.server_id,
            "outcome": "success",
            "description": f"what was done at {word}",
            "context": {"ip": self.address, "user_agent": f"{word}/1", "session_id": f"{word}-session", "request_id": f"{word}-request"},
            "changes": [{"path": f"/{word}", "op": "replace", "old": f"{word} old {number}", "new": f"{word} old {number + 1}"}],
            "metadata": {"note": f"{word}-note"},
            "source": {"id": f"{word}-source", "seq": number},
        }  # fmt: skip

    def events(self) -> list[Event]:
        """All its events."""
        return [self.event(number) for number in range(EVENTS)]

    def asked(self) -> dict[str, str]:
        """Filter → a value that selects all its events and no others."""
        word = self.word
        return {
            "actor": f"{word}-actor",
            "actor_type": f"{word}-people",
            "role": f"{word}-role",
            "action": f"{word}.updated",
            "category": f"{word}-category",
            "target_type": f"{word}-kind",
            "target_id": f"{word}-target",
            "ip": f"{self.network}0/24",
            "request_id": f"{word}-request",
            "session": f"{word}-session",
            "changed": f"/{word}",
            "q": f"done {word}",
            **({} if self.server_id is None else {"server_id": self.server_id}),
        }

    def asked_once(self) -> dict[str, str]:
        """Filter → a value that selects one of its events and no other."""
        return {"id": f"{self.word}-1", "old": f"{self.word} old 1", "new": f"{self.word} old 2"}


SHARED_SERVER = "a-server"
OWN = Place("ownplace", SHARED_SERVER, "192.0.2.", 0)
OTHER = Place("otherplace", "server-otherplace", "198.51.100.", 3)
THIRD = Place("thirdplace", "server-thirdplace", "203.0.113.", 6)
GLOBAL = Place("globalplace", None, "10.1.1.", 9)
# A server of the other tenant has the id of one of the first's: it means nothing across tenants.
ALIEN = Place("alienplace", SHARED_SERVER, "10.2.2.", 12)
OF_FIRST = (OWN, OTHER, THIRD, GLOBAL)
OF_SECOND = (ALIEN, Place("alienglobal", None, "10.3.3.", 15))
PLACES = {place.word: place for place in (*OF_FIRST, *OF_SECOND)}


def mixed(places: Sequence[Place]) -> list[Event]:
    """The events of all the places, taking turns: whoever counts seqs learns nothing."""
    return [place.event(number) for number in range(EVENTS) for place in places]


def leaks(response: httpx.Response, words: Sequence[str]) -> list[str]:
    """Which of the words an answer has, in its body or a header."""
    text = "\n".join((response.text, *response.headers.values())).lower()
    return [word for word in words if word in text]


@dataclass(frozen=True, slots=True)
class Persona:
    """Who asks with a credential of their own, and whose places they see."""

    name: str
    api: Api
    key: str
    places: tuple[Place, ...]

    @property
    def foreign(self) -> list[str]:
        """The words that no answer to them may hold."""
        return [word for word, place in PLACES.items() if place not in self.places]

    async def get(self, path: str, **parameters: Any) -> httpx.Response:
        """GET with their credential."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return await self.api.client.get(httpx.URL(path).copy_merge_params(parameters), headers=headers)
