"""The verifier in one HTML page, run by a headless Chromium: it agrees with the program, and a person can use it."""

import base64
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripts.seal_page import PAGE, sealed

from audit_service.offline.verify_file import CHECKS, verify
from tests.support.bundles import pack
from tests.support.chromium import Browser, find_chromium, open_browser
from tests.support.evidence_cases import Case, bad_cases, full_log, good_cases, random_cases

# Slow machines share two cores with the rest of the tests.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One page with the verifier, loaded from its file."""
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium): the page was not run")
    with open_browser(program, tmp_path_factory.mktemp("profile")) as found:
        found.open(PAGE)
        yield found


def judge(browser: Browser, case: Case) -> dict[str, Any]:
    """The page's report on a case."""
    data, keys = base64.b64encode(case.data).decode(), json.dumps(case.keys)
    expression = f"verifyBundle(Uint8Array.from(atob('{data}'), (one) => one.charCodeAt(0)), {keys})"
    return dict(browser.evaluate(expression))


def verdicts(report: dict[str, Any]) -> dict[str, Any]:
    """What both verifiers must say alike."""
    # Who may explain what is gone depends on the order of the lines, which is no order any more once headers fail.
    open_ended = {"policy"} | ({"forgotten"} if report["checks"]["headers"]["verdict"] == "fail" else set())
    return {
        name: (check["verdict"], check["first_bad_seq"])
        for name, check in report["checks"].items()
        if name not in open_ended
    }


def test_page_and_program_agree_on_every_case(browser: Browser, tmp_path: Path) -> None:
    """One page load; the named cases and a few hundred random mutants, whose seed stands in the message."""
    seed = random.SystemRandom().randrange(1 << 32)
    seen = set()
    for case in (*good_cases(), *bad_cases(), *random_cases(300, seed)):
        bundle = tmp_path / "bundle"
        bundle.write_bytes(case.data)
        ours, theirs = verify(bundle, case.keys, processes=1).as_json(), judge(browser, case)
        assert ours["status"] == theirs["status"], (seed, case.name, theirs)
        assert verdicts(ours) == verdicts(theirs), (seed, case.name)
        assert case.exit in {-1, ("ok", "bad", "unknown").index(theirs["status"])}, case.name
        seen.add(theirs["status"])
    assert seen == {"ok", "bad", "unknown"}


@pytest.mark.parametrize("check", [check for check in CHECKS if check != "policy"])
def test_a_page_without_one_check_lets_something_pass(check: str, browser: Browser) -> None:
    """The control: for each check some case is held back by it alone."""
    held = [case for case in bad_cases() if case.fails == {check} and len(case.data) < 200_000]
    browser.evaluate(
        "globalThis.whole ??= Findings.prototype.fail; Findings.prototype.fail = function (name, ...rest) "
        f"{{ if (name !== {json.dumps(check)}) whole.call(this, name, ...rest); }}; 0"
    )
    try:
        assert any(judge(browser, case)["status"] == "ok" for case in held)
    finally:
        browser.evaluate("Findings.prototype.fail = whole; 0")


def test_a_browser_without_ed25519_says_that_it_did_not_check(browser: Browser) -> None:
    case = next(good_cases())
    browser.evaluate("globalThis.kept = [ed25519]; ed25519 = Promise.resolve(false); 0")
    try:
        report = judge(browser, case)
    finally:
        browser.evaluate("ed25519 = kept[0]; 0")
    assert report["status"] == "unknown"
    assert report["checks"]["checkpoint"]["verdict"] == "not_checked"
    assert "cannot check Ed25519" in report["checks"]["checkpoint"]["reason"]
    assert judge(browser, case)["status"] == "ok"


def _press(browser: Browser, key: str, text: str = "", **more: Any) -> None:
    for kind in ("keyDown", "keyUp"):
        browser.send(
            "Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text if kind == "keyDown" else "", **more
        )


def test_a_person_verifies_with_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    """A file picked, the key typed, Enter on the button: banner and table, focus on the banner; light and dark."""
    log = full_log()
    bundle = tmp_path / "bundle.zip"
    bundle.write_bytes(pack(log.bundle(chosen=lambda _: True, filters="<img src=x onerror=document.title=1>")))
    for scheme in ("light", "dark"):
        browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.open(PAGE)
        root = browser.send("DOM.getDocument")["root"]["nodeId"]
        node = browser.send("DOM.querySelector", nodeId=root, selector="#bundle")["nodeId"]
        browser.send("DOM.setFileInputFiles", files=[str(bundle)], nodeId=node)
        browser.evaluate("byId('bundle').focus(); 0")
        _press(browser, "Tab", windowsVirtualKeyCode=9)
        assert browser.evaluate("document.activeElement.id") == "keys"
        browser.send("Input.insertText", text=log.vkey)
        _press(browser, "Tab", windowsVirtualKeyCode=9)
        assert browser.evaluate("document.activeElement.id") == "verify"
        _press(browser, "Enter", "\r", windowsVirtualKeyCode=13)
        browser.evaluate(
            "new Promise((done) => { const look = () => byId('result').hidden ? setTimeout(look, 10) : done(); look(); })"
        )
        assert browser.evaluate("document.activeElement.id") == "status"
        assert "inclusion only, completeness not proven" in browser.evaluate("byId('status').textContent")
        rows = browser.evaluate("[...document.querySelectorAll('#checks tr')].map((row) => row.cells[0].textContent)")
        assert tuple(rows) == CHECKS
        # What a stranger wrote is shown as it is and not as markup.
        assert "<img src=x" in browser.evaluate("byId('claims').textContent")
        assert browser.evaluate("document.querySelectorAll('img').length") == 0
        contrast = browser.evaluate("getComputedStyle(document.documentElement).colorScheme")
        assert contrast == "light dark"
        shot = base64.b64decode(browser.send("Page.captureScreenshot", captureBeyondViewport=True)["data"])
        assert shot.startswith(b"\x89PNG")


def test_the_page_asks_the_network_for_nothing(browser: Browser) -> None:
    """Only its own file is loaded, nothing is logged, and its policy refuses a request from within."""
    browser.open(PAGE)
    asked = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert asked == [PAGE.as_uri()]
    assert not [
        event for event in browser.events if event.get("method") in {"Log.entryAdded", "Runtime.exceptionThrown"}
    ]
    refused = browser.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => error.name)")
    assert refused == "TypeError"
    assert any("Content Security Policy" in json.dumps(event) for event in browser.events)


def test_the_page_is_sealed_and_complete_in_itself() -> None:
    """Its policy names the very script and style (`python -m scripts.seal_page`), and nothing in it lies elsewhere."""
    page = PAGE.read_text("utf-8")
    assert page == sealed(page)
    assert not re.search(r"(?:src|href)=|url\(|@import|https?://", page)
