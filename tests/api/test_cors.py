"""Which pages elsewhere may read: those of the configured origins, with GET and the Authorization header, and what shows entries alone."""

from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from audit_service.api.cors import READ_PATHS
from audit_service.settings import Settings
from tests.support.api import Api
from tests.support.apps import open_api
from tests.support.chromium import find_chromium, open_browser
from tests.support.credentials import ask, issue_token
from tests.support.postgres import TestDatabase
from tests.support.processes import wait_until
from tests.support.served import served

PANEL = "https://panel.example.com"
PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
READS = [
    "/v1/events",
    "/v1/events/x",
    "/v1/servers/s1/activity",
    "/v1/facets",
    "/v1/timeline",
    "/v1/export",
    "/v1/targets/a/b/history",
]
OTHERS = [
    "/v1/keys",
    "/v1/viewer-tokens",
    "/v1/tenants",
    "/v1/chain",
    "/v1/evidence",
    "/healthz",
    "/openapi.json",
    "/v1/retention/requests",
]
FOREIGN = [
    "https://panel.example.com.evil.example", "https://evil-panel.example.com", "http://panel.example.com", "https://panel.example.com:8443",
    "https://PANEL.example.com", "https://panel.example.com/", "null", "*", "", "https://panel.example.com https://panel.example.com",
]  # fmt: skip


@pytest.fixture(scope="module")
async def panel(module_database: TestDatabase) -> AsyncIterator[Api]:
    """The app with two origins."""
    async with open_api(module_database, cors_origins=(PANEL, "http://localhost:3000")) as api:
        yield api


def cors_of(response: httpx.Response) -> dict[str, str]:
    """The headers a browser looks at."""
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("origin", [PANEL, "http://localhost:3000"])
async def test_a_page_of_the_panel_may_read(panel: Api, path: str, origin: str) -> None:
    """Asked before with a real preflight, which needs no credential; then for real, and told also when it is refused."""
    request = panel.client.build_request("OPTIONS", path, headers={"Origin": origin, **PREFLIGHT})
    del request.headers["authorization"]
    preflight = await panel.client.send(request)
    assert (preflight.status_code, preflight.content, preflight.headers["vary"]) == (204, b"", "Origin")
    assert cors_of(preflight) == {
        "access-control-allow-origin": origin, "access-control-allow-methods": "GET",
        "access-control-allow-headers": "Authorization", "access-control-max-age": "600",
    }  # fmt: skip
    token = (await issue_token(panel, export=True))["token"]
    for key, status in ((token, 200), ("nonsense", 401)):
        response = await ask(panel, "GET", path, key, headers={"Origin": origin})
        assert response.status_code in {status, 404 if status == 200 else status}
        assert response.headers["access-control-allow-origin"] == origin
        assert "Origin" in response.headers["vary"]
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_page_elsewhere_may_not(panel: Api, origin: str) -> None:
    """Nothing that looks like a configured origin is let in; the answer says that it depends on the origin, for caches."""
    preflight = await panel.client.options("/v1/events", headers={"Origin": origin, **PREFLIGHT})
    assert (preflight.status_code, cors_of(preflight)) == (405, {})
    response = await panel.client.get("/v1/events", headers={"Origin": origin})
    assert (response.status_code, cors_of(response), response.headers["vary"]) == (200, {}, "Origin")


async def test_two_origins_are_none(panel: Api) -> None:
    """Whoever stands before us may have looked at the other one."""
    response = await panel.client.get("/v1/events", headers=[("Origin", PANEL), ("Origin", PANEL)])
    assert cors_of(response) == {}


@pytest.mark.parametrize("path", OTHERS)
async def test_what_shows_no_entries_is_open_to_no_page(panel: Api, path: str) -> None:
    """Keys, tokens, tenants, and what speaks of the whole log."""
    assert not path.startswith(READ_PATHS)
    preflight = await panel.client.options(path, headers={"Origin": PANEL, **PREFLIGHT})
    assert (preflight.status_code, cors_of(preflight)) == (405, {})
    assert cors_of(await panel.client.get(path, headers={"Origin": PANEL})) == {}


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
async def test_a_page_may_do_nothing_but_read(panel: Api, method: str) -> None:
    """A browser refuses what the preflight does not allow; and a POST, which needs none, answers without the headers."""
    headers = {"Origin": PANEL, **PREFLIGHT, "Access-Control-Request-Method": method}
    preflight = await panel.client.options("/v1/events", headers=headers)
    assert method not in preflight.headers["access-control-allow-methods"]
    posted = await panel.client.post("/v1/events", json={"action": "x"}, headers={"Origin": PANEL})
    assert cors_of(posted) == {}


async def test_without_origins_no_page_may_read(module_database: TestDatabase) -> None:
    """The default; and the control for the tests above."""
    async with open_api(module_database) as api:
        preflight = await api.client.options("/v1/events", headers={"Origin": PANEL, **PREFLIGHT})
        assert (preflight.status_code, cors_of(preflight)) == (405, {})
        response = await api.client.get("/v1/events", headers={"Origin": PANEL})
        assert (cors_of(response), "vary" in response.headers) == ({}, False)


BAD_ORIGINS = [
    "*", "https://*.example.com", "panel.example.com", "https://panel.example.com/", "https://PANEL.example.com", "null", "ftp://a",
    "https://a?b", "https://u@a", "https://a:443", "http://a:80", "https://a b", "https://", "https://ä.example",
]  # fmt: skip


@pytest.mark.parametrize("origin", BAD_ORIGINS)
def test_an_origin_that_no_browser_sends_stops_the_start(origin: str) -> None:
    """It would never match, or match too much."""
    with pytest.raises(ValidationError):
        Settings(cors_origins=(PANEL, origin))


def test_origins_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every list of the settings."""
    monkeypatch.setenv("AUDIT_CORS_ORIGINS", f"{PANEL}, http://[2001:db8::1]:8080,")
    assert Settings().cors_origins == (PANEL, "http://[2001:db8::1]:8080")


# --- a real browser ---

READ = """fetch("{url}/v1/events", {{headers: {{Authorization: "Bearer {token}"}}}})
    .then(r => r.json().then(b => [r.status, b.events.length > 0])).catch(e => ["refused", e.name])"""


class _Page(BaseHTTPRequestHandler):
    """An empty page, for an origin of its own."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>panel</title>")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def pages() -> Iterator[list[str]]:
    """Two origins that serve a page."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _Page) for _ in range(2)]
    for server in servers:
        Thread(target=server.serve_forever, daemon=True).start()
    yield [f"http://127.0.0.1:{server.server_port}" for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


async def test_in_a_real_browser_one_origin_reads_and_the_other_does_not(
    module_database: TestDatabase, shared_api: Api, pages: list[str], tmp_path: Path
) -> None:
    """Chromium's own idea of CORS: preflight, header and all."""
    program = find_chromium()
    if program is None:
        pytest.skip("Chromium is not installed")
    await shared_api.accept({"action": "x"})
    token = (await issue_token(shared_api))["token"]
    with served(module_database, AUDIT_CORS_ORIGINS=pages[0]) as (url,), open_browser(program, tmp_path) as browser:
        told = []
        for page in pages:
            browser.send("Page.navigate", url=page)
            wait_until(lambda page=page: browser.evaluate("location.origin") == page, page)  # type: ignore[misc]
            told.append(browser.evaluate(READ.format(url=url, token=token)))
    assert told == [[200, True], ["refused", "TypeError"]]
