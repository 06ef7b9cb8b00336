"""Made-up events of the drill: each has every group of disclosures and every query column, so that all of them can be attacked."""

import secrets

from audit_service.core.entry import JSONObject

SOURCE = "drill"


def sample_event(source_seq: int | None = None) -> JSONObject:
    """An event as a panel sends it, with an id of its own."""
    token = secrets.token_hex(6)
    number = secrets.randbelow(250) + 1
    return {
        "id": f"drill:{token}",
        "action": "schedule.updated",
        "actor": {"type": "user", "id": f"u{number}", "name": f"Ana {token}", "email": f"{token}@example.com", "role": "admin"},
        "on_behalf_of": {"type": "user", "id": f"u{number + 1}", "name": "Ben"},
        "target": {"type": "schedule", "id": f"t{number}", "name": f"nightly {token}"},
        "related": [{"type": "backup_log", "id": token}],
        "server_id": f"s{number}",
        "outcome": "success",
        "reason": "drill",
        "description": f"made up for a drill {token}",
        "context": {"ip": f"203.0.113.{number}", "session_id": token, "request_id": token, "user_agent": "drill"},
        "before": {"retention": {"days": number}, "note": "before"},
        "after": {"retention": {"days": number + 7}, "note": token},
        "metadata": {"amount": "12.50", "number": number},
        "source": {"id": SOURCE, "seq": secrets.randbits(62) if source_seq is None else source_seq},
    }  # fmt: skip
