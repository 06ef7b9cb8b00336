"""Put the hashes of its script and style into the content security policy of verify.html: after each edit.

python -m scripts.seal_page
"""

import base64
import hashlib
import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "src" / "audit_service" / "offline" / "verify.html"


def sealed(page: str) -> str:
    """The page with the right hashes."""
    for tag in ("script", "style"):
        (inner,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        page = re.sub(rf"{tag}-src 'sha256-[^']*'", lambda _, to=f"{tag}-src 'sha256-{digest}'": to, page)
    return page


if __name__ == "__main__":
    PAGE.write_text(sealed(PAGE.read_text("utf-8")), "utf-8")
