"""The documentation page: Swagger UI on `openapi.json`, where AUDIT_DOCS_ENABLED.

Its script and style come from a public host, so the page works only where the reader's browser reaches it; the policy of the page lets
the browser load these two files, run the one inline script by its hash, and ask this service for the document.
"""

import base64
import re
from hashlib import sha256

from fastapi import APIRouter, Depends, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import Response

from audit_service.api.dependencies import open_to_all

router = APIRouter(include_in_schema=False)
_SCRIPT = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui-bundle.js"
_STYLE = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui.css"


@router.get("/docs", response_model=None, dependencies=[Depends(open_to_all)])
async def get_docs(request: Request) -> Response:
    """The page, with a policy of its own."""
    page = get_swagger_ui_html(
        openapi_url=request.app.openapi_url,
        title=request.app.title,
        swagger_js_url=_SCRIPT,
        swagger_css_url=_STYLE,
        swagger_favicon_url="data:,",
    )
    page.headers["Content-Security-Policy"] = _policy(bytes(page.body).decode())
    return page


def _policy(page: str) -> str:
    hashes = [
        f"'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}'"
        for script in re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    ]
    return "; ".join([
        "default-src 'none'",
        " ".join(["script-src", _SCRIPT, *hashes]),
        f"style-src {_STYLE} 'unsafe-inline'",  # the page sets styles of elements
        "img-src data:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ])  # fmt: skip
