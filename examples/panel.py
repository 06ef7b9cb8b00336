import os
from pathlib import Path

from audit_service.client import AuditClient

with AuditClient(os.environ["AUDIT_URL"], os.environ["AUDIT_KEY"], spool=Path("audit.spool")) as audit:
    before = {"name": "web-1", "memory": 4096, "root_password": "old one"}
    after = {"name": "web-1", "memory": 8192, "root_password": "new one"}
    audit.record("server.updated", actor={"id": "u12", "name": "Ana"}, server_id="s9", before=before, after=after)
    audit.flush(timeout_seconds=5)
