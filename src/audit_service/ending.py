"""What takes long and can break off: an export, a bundle of evidence, a verification. Noted at its end, however it ends.

A process that is killed meanwhile leaves no note of it.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast

from audit_service.core.canonical import JSONValue
from audit_service.core.own_event import Actor, OwnEvent
from audit_service.core.report import Report
from audit_service.errors import InputError
from audit_service.watch import Place, Watch, own_event


@dataclass(slots=True)
class Ending:
    """What is noted at the end of something long; `metadata` grows as it goes on. It is noted once."""

    watch: Watch
    place: Place
    action: str
    actor: Actor
    ip: str | None
    metadata: dict[str, JSONValue]

    def add_entries(self, more: int) -> None:
        """So many more entries went out."""
        self.metadata["entries"] = cast("int", self.metadata["entries"]) + more

    async def complete(self) -> None:
        """It came to its end: durable when this returns, if the database takes it now."""
        event = self._event("success", "complete")
        try:
            await self.watch.note_or_later(self.place, event)
        except asyncio.CancelledError:
            self.watch.later(self.place, event)  # with the same id: if it was written, it is not written again
            raise

    @contextmanager
    def unless_complete(self) -> Iterator[None]:
        """Around all of it: whatever ends it early is noted too. A request that was wrong is no beginning."""
        try:
            yield
        except InputError:
            raise
        except (GeneratorExit, asyncio.CancelledError):
            self._break_off("cut")
            raise
        except BaseException:
            self._break_off("failed")
            raise

    def _break_off(self, ended: Literal["cut", "failed"]) -> None:
        if "ended" not in self.metadata:
            self.watch.later(self.place, self._event("failure", ended))

    def _event(self, outcome: Literal["success", "failure"], ended: str) -> OwnEvent:
        self.metadata["ended"] = ended
        return own_event(self.action, self.actor, outcome=outcome, ip=self.ip, metadata=dict(self.metadata))


def found(report: Report) -> dict[str, JSONValue]:
    """What is noted of a report."""
    return {
        "from_seq": report.from_seq,
        "to_seq": report.to_seq,
        "entries": report.count,
        "status": report.status,
        "breaks": report.breaks_total,
    }
