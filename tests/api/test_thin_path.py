"""The path of an event, end to end: post, read, verify, export."""

from tests.support.api import Api

EVENT = {
    "id": "panel-7:evt-1029",
    "occurred_at": "2026-11-22T10:15:00.123456+01:00",
    "action": "schedule.updated",
    "category": "schedules",
    "actor": {
        "type": "user",
        "id": "u12",
        "name": "Ana Gómez",
        "email": "ana@example.com",
        "role": "Super Admin",
    },
    "target": {"type": "schedule", "id": "77", "name": "nightly"},
    "related": [{"type": "backup_log", "id": "5512"}],
    "server_id": "s9",
    "outcome": "success",
    "context": {"ip": "203.0.113.9", "user_agent": "curl/8", "session_id": "abc", "request_id": "r-1"},
    "before": {"retention": {"days": 7}, "password": "a"},
    "after": {"retention": {"days": 14}, "password": "b"},
    "metadata": {"amount": "12.50", "currency": "EUR"},
    "source": {"id": "panel-7", "seq": 1029},
}


async def test_an_event_is_posted_read_and_verified(api: Api) -> None:
    """What the README shows first."""
    (receipt,) = await api.accept(EVENT)
    assert receipt["seq"] == 0
    assert receipt["kept"] is True
    event = await api.event("panel-7:evt-1029")
    assert event["changes"] == [
        {"path": "/password", "op": "replace", "redacted": True},
        {"path": "/retention/days", "op": "replace", "old": 7, "new": 14},
    ]
    assert event["verb"] == "UPDATE"
    assert event["occurred_at"] == "2026-11-22T09:15:00.123456Z"
    assert event["proof"]["hash"] == receipt["hash"]
    assert event["context"]["session_id"] != "abc"
    assert event["summary"] == (
        "Ana Gómez updated schedule nightly (77): /password changed (value withheld); /retention/days 7 → 14"
    )
    assert [event] == await api.list(actor="ana*", server_id="s9", verb="UPDATE")
    await api.assert_intact(1)
