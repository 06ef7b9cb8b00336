"""Calling the service as a panel would, and saying that the log is intact afterwards."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from audit_service.api.dependencies import Service
from audit_service.core.api_key import key_hash
from audit_service.core.own_event import OWN_ACTIONS
from audit_service.core.sight import EVERYTHING


@dataclass(frozen=True, slots=True)
class Api:
    """An HTTP client with the admin key, and the service behind it."""

    client: httpx.AsyncClient
    service: Service

    async def post(self, event: Any, **headers: str) -> httpx.Response:
        """POST /v1/events."""
        return await self.client.post("/v1/events", json=event, headers=headers)

    async def accept(self, *events: Any) -> list[dict[str, Any]]:
        """Post each event by itself; every one must be stored. Their receipts."""
        receipts = []
        for event in events:
            response = await self.post(event)
            assert response.status_code == 201, response.text
            receipts.append(response.json())
        return receipts

    async def list(self, **parameters: Any) -> list[dict[str, Any]]:
        """The events of the first page."""
        response = await self.client.get("/v1/events", params={k.replace("__", "."): v for k, v in parameters.items()})
        assert response.status_code == 200, response.text
        events: list[dict[str, Any]] = response.json()["events"]
        return events

    async def event(self, event_id: str) -> dict[str, Any]:
        """One event."""
        response = await self.client.get(f"/v1/events/{event_id}")
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    async def verify(self, **parameters: Any) -> dict[str, Any]:
        """The verify report."""
        response = await self.client.get("/v1/chain/verify", params=parameters)
        assert response.status_code == 200, response.text
        report: dict[str, Any] = response.json()
        return report

    async def notes(self, **parameters: Any) -> Sequence[dict[str, Any]]:
        """What the service noted in this log, the latest first."""
        asked = {"action": "audit.*", "limit": 500, "sort": "-seq", **parameters}
        headers = {"Authorization": f"Bearer {await self._all_seeing_key()}"}
        response = await self.client.get("/v1/events", params=asked, headers=headers)
        assert response.status_code == 200, response.text
        return [event for event in response.json()["events"] if event["action"] in OWN_ACTIONS]

    async def _all_seeing_key(self) -> str:
        """A key of the same tenant that sees what the service notes, as the app holds one that it has just looked up."""
        own = await self.service.credential(self.client.headers["authorization"].removeprefix("Bearer "))
        assert own is not None
        key = secrets.token_hex(20)
        seeing = replace(own, scopes=frozenset({"read"}), sight=EVERYTHING)
        self.service._cache(key_hash(key), seeing, time.monotonic() + 60)
        return key

    async def assert_intact(self, size: int) -> None:
        """The log verifies and has exactly `size` entries, besides what the service noted of what the test did."""
        size += len(await self.notes())
        report = await self.verify()
        assert report["breaks"] == [], report["breaks"][:5]
        assert report["status"] == "ok"
        assert report["checked"] == {"from_seq": 0, "to_seq": size, "count": size}
