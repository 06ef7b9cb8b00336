"""The forms in which real panels bring a name and its value apart, and what only looks like them."""

import doctest

import pytest

from audit_service.core import named_pair
from audit_service.core.canonical import JSONValue
from audit_service.core.diff import diff
from audit_service.core.redaction import (
    REDACTED,
    compile_ruleset,
    holds_token,
    redact_changes,
    redact_event,
    redact_text,
    redact_value,
)

RULES = compile_ruleset()
CANARY = "hun" + "ter2canary"
TOKEN = "gh" + "p_" + "a1B2c3D4e5F6" * 3
CARD = ["4111"] + ["1111"] * 3


def test_the_examples_in_the_docstring_run() -> None:
    assert doctest.testmod(named_pair).failed == 0


PAIRS: list[JSONValue] = [
    {"meta_key": "smtp_password", "meta_value": CANARY}, {"setting_key": "api_key", "setting_value": CANARY},
    {"configkey": "SMTPPassword", "configvalue": CANARY}, {"fieldname": "Root Password", "value": CANARY},
    {"customfield": "EPP Code", "value": CANARY}, {"label": "Password", "value": CANARY},
    {"type": "password", "value": CANARY}, {"type": "password", "content": CANARY},
    {"op": "replace", "path": "/password", "old": CANARY, "value": CANARY},
    [["DB_PASSWORD", CANARY]], [["PORT", "1"], ["DB_PASSWORD", CANARY]], {"pair": ["DB_PASSWORD", CANARY]},
    {"headers": [["Authorization", CANARY], ["Cookie", CANARY]]},
    {"columns": ["id", "password"], "rows": [[1, CANARY], [2, CANARY]]},
    {"columns": [{"name": "id"}, {"name": "password"}], "data": [[1, CANARY]]},
    {"fields": ["id", "password"], "values": [1, CANARY]},
    ["sshpass", "-p", CANARY], ["mysql", f"-p{CANARY}"], ["curl", "-u", f"admin:{CANARY}"],
    ["/usr/bin/docker", "login", "-u", "ana", "-p", CANARY], ["smbclient", "//h/s", "-U", f"ana%{CANARY}"],
]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: str(pair).replace(CANARY, "*")[:70])
def test_a_value_goes_with_the_name_that_stands_apart_from_it(pair: JSONValue) -> None:
    assert CANARY in str(pair)
    shown = redact_value({"row": pair}, RULES)
    assert CANARY not in str(shown)
    assert REDACTED in str(shown)
    assert redact_value(shown, RULES) == shown
    event: dict[str, JSONValue] = {"metadata": {"row": pair}, "after": {"row": pair}}
    redacted, changes = redact_event(event, diff(None, event["after"]), RULES)
    assert CANARY not in str([redacted, changes])


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: str(pair).replace(CANARY, "*")[:70])
def test_a_change_of_such_a_value_shows_neither_side(pair: JSONValue) -> None:
    def with_secret(value: JSONValue, secret: str) -> JSONValue:
        if isinstance(value, dict):
            return {name: with_secret(member, secret) for name, member in value.items()}
        if isinstance(value, list):
            return [with_secret(member, secret) for member in value]
        return value.replace(CANARY, secret) if isinstance(value, str) else value

    before, after = {"row": with_secret(pair, CANARY + "1")}, {"row": with_secret(pair, CANARY + "2")}
    redacted, changes = redact_event({"before": before, "after": after}, diff(before, after), RULES)
    assert changes
    assert CANARY not in str([redacted, changes])


HARMLESS: list[JSONValue] = [
    {"event_name": "CreateAccessKey", "additional_data": {"a": 1}}, {"username": "secret", "data": {"a": 1}},
    {"label": "Region", "value": "eu"}, {"meta_key": "theme", "meta_value": "dark"}, ["password", 1, 2], ["PORT", "8080"],
    {"hidden": ["password", "token"]}, {"fields": ["password", "email"], "tags": ["a", "b"]},
    {"columns": ["id", "name"], "rows": [[1, "ana"]]}, ["curl", "-s", "https://x/"], ["ls", "-p", "dir"],
    {"title": "How do I reset my forgotten password?", "content": "Ask us."}, {"path": "/users/3", "value": "x"},
]  # fmt: skip


@pytest.mark.parametrize("value", HARMLESS, ids=str)
def test_what_only_looks_like_a_pair_stays(value: JSONValue) -> None:
    assert redact_value({"row": value}, RULES) == {"row": value}


def test_ready_made_changes_are_judged_by_the_names_in_their_siblings() -> None:
    for old, new in (("HOST", "DB_PASSWORD"), ("DB_PASSWORD", "HOST")):
        changes: list[dict[str, JSONValue]] = [
            {"path": "/env/0/name", "op": "replace", "old": old, "new": new},
            {"path": "/env/0/value", "op": "replace", "old": "x", "new": CANARY},
            {"path": "/env/1/value", "op": "replace", "old": "a", "new": "b"},
        ]
        expected = [changes[0], {"path": "/env/0/value", "op": "replace", "redacted": True}, changes[2]]
        assert redact_changes(changes, RULES, target_type=None) == expected
        event, shown = redact_event({"action": "a", "changes": changes}, changes, RULES)  # type: ignore[dict-item]
        assert event["changes"] == shown == expected
    pair: list[dict[str, JSONValue]] = [
        {"path": "/headers/0/0", "op": "add", "new": "Cookie"}, {"path": "/headers/0/1", "op": "add", "new": CANARY},
    ]  # fmt: skip
    assert redact_event({"action": "a"}, pair, RULES)[1][1] == {"path": "/headers/0/1", "op": "add", "redacted": True}


class TestIds:
    @pytest.mark.parametrize("own", ["token:41", "otp:88", "password:reset:77", "api-token:42", "pin=3", "".join(CARD)])
    def test_an_id_that_names_a_secret_holds_none(self, own: str) -> None:
        event: dict[str, JSONValue] = {
            "id": own, "target": {"type": "t", "id": own}, "actor": {"type": "u", "id": own}, "server_id": own,
            "context": {"request_id": own},
        }  # fmt: skip
        assert redact_event(event, [], RULES)[0] == event
        assert not holds_token(own, RULES)

    @pytest.mark.parametrize(
        "own", [TOKEN, f"x:{TOKEN}", f"https://u:{CANARY}@host/1", f"https://h/?token={CANARY}", "$2y$10$" + "a" * 53]
    )
    def test_a_secret_by_its_own_form_goes_from_an_id_and_is_told_of_an_action(self, own: str) -> None:
        redacted, _ = redact_event({"id": own, "target": {"type": "t", "id": own}}, [], RULES)
        assert own not in str(redacted)
        assert holds_token(own, RULES)

    @pytest.mark.parametrize("action", ["token.created", "password:reset", "api-key/rotate", "UPDATE"])
    def test_an_ordinary_action_holds_no_token(self, action: str) -> None:
        assert not holds_token(action, RULES)


TEXTS = [
    ("password: |\n  {}\n  {}\nuser: ana", "password: |\n  [redacted]\nuser: ana"),
    ("a:\n  password: >-\n    {}\n  b: 1", "a:\n  password: >-\n    [redacted]\n  b: 1"),
    ("password:\n- {}\n- {}\nuser: x", "password:\n- [redacted]\nuser: x"),
    ("password:\r\n{}\r\n", "password:\r\n[redacted]\r\n"),
    ("password:\nuser: ana", "password:\nuser: ana"),
    ('say "x", password="x""{}" y', 'say "x", password="[redacted]" y'),
    ("password='x''{}' y", "password='[redacted]' y"),
    ("password = x, {}", "password = [redacted]"),
    ("DB_PASSWORD=my {} pw", "DB_PASSWORD=[redacted]"),
    ('{{"password": {{"a": {{"b": 1}}, "c": "{}"}}, "n": 1}} and more', '{"password":"[redacted]","n":1} and more'),
    ('{{"key":"DB_PASSWORD","value":"{}"}} sent', '{"key":"DB_PASSWORD","value":"[redacted]"} sent'),
    ('got secret={{"a": {{"b": 1}}, "c": "{}"}} end', "got secret=[redacted] end"),
    ("/x?user%5Bpassword%5D={}&a=1", "/x?user%5Bpassword%5D=[redacted]&a=1"),
    ("/x?pass%77ord={}&a=1", "/x?password=[redacted]&a=1"),
    ('<input name="password" value="{}">', '<input name="password" value="[redacted]">'),
    ("<input value='{}' type='password'>", "<input value='[redacted]' type='password'>"),
    ("<param name=api_key value={}>", "<param name=api_key value=[redacted]>"),
    ('<string name="api_key">{}</string>', '<string name="api_key">[redacted]</string>'),
    ("<password><![CDATA[{}]]></password>", "<password><![CDATA[[redacted]]]></password>"),
    ("<key>password</key><string>{}</string>", "<key>password</key><string>[redacted]</string>"),
    ('name="password"\r\n\r\n{}\r\n--b', 'name="password"\r\n\r\n[redacted]\r\n--b'),
    ("define('DB_PASSWORD', '{}');", "define('DB_PASSWORD', '[redacted]');"),
    ("password\t{}", "password\t[redacted]"),
    ("machine h login u password {}", "machine h login u password [redacted]"),
    ("password -> {}", "password -> [redacted]"),
    ("docker login -u a -p {} host", "docker login -u a -p [redacted] host"),
    ("useradd -m -p {} bob", "useradd -m -p [redacted] bob"),
    ("echo 'root:{}' | chpasswd", "echo 'root:[redacted]' | chpasswd"),
    ("ipmitool -H h -U a -P {} power on", "ipmitool -H h -U a -P [redacted] power on"),
    ("ldapsearch -x -w {} -b dc=x", "ldapsearch -x -w [redacted] -b dc=x"),
    ("smbclient //h/s -U ana%{} -c ls", "smbclient //h/s -U ana%[redacted] -c ls"),
    ("SET PASSWORD FOR 'u'@'h' = '{}'", "SET PASSWORD FOR 'u'@'h' = '[redacted]'"),
]


@pytest.mark.parametrize(("template", "expected"), TEXTS, ids=[expected[:40] for _, expected in TEXTS])
def test_the_whole_secret_goes_and_the_rest_stays(template: str, expected: str) -> None:
    text = template.format(*[CANARY] * template.count("{}"))
    shown = redact_text(text, RULES)
    assert shown == expected
    assert redact_text(shown, RULES) == shown
    row: dict[str, JSONValue] = {"note": text}
    assert redact_event({"metadata": row}, [], RULES)[0] == {"metadata": {"note": expected}}


@pytest.mark.parametrize("joint", ["\u00a0", ".", "\u202f", "\u2009"])
def test_card_numbers_go_whatever_joins_their_groups(joint: str) -> None:
    assert redact_text(f"paid with {joint.join(CARD)} today", RULES) == "paid with [redacted] today"
    wide = "".join(CARD).translate({ord(str(digit)): chr(0xFF10 + digit) for digit in range(10)})
    assert redact_text(f"paid with {wide} today", RULES) == "paid with [redacted] today"


HARMLESS_TEXTS = [
    "test_" + "abcdef0123456789" * 2, "live_" + "ABCDEF0123456789" * 2, "md5" + "0123456789abcdef" * 2, "12|" + "0123456789" * 4,
    "7|" + "0123456789abcdef0123" * 2, "s.getElementsByTagNameAndCl", "s." + "abcdefgh" * 3, "SKU " + "".join(CARD),
    "invoice no. " + "".join(CARD), "order #" + "".join(CARD), "cookie: accepted", "password=${DB_PASSWORD}",
    "DB_PASSWORD=${DB_PASSWORD}\nA=1", 'password: "{{ vault.password }}"', "token: {{ token }}", "id\tname", "1.4111.1111.1111.1111",
    "<label name='password'>Your password</label>", "docker login host", "<key>name</key><string>x</string>",
]  # fmt: skip


@pytest.mark.parametrize("text", HARMLESS_TEXTS)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert redact_text(text, RULES) == text


def test_numbers_of_things_stay_under_their_names() -> None:
    number = "".join(CARD)
    kept: JSONValue = {"sku": number, "invoice_number": number, "invoiceNo": number, "order_ref": number}
    assert redact_value(kept, RULES) is kept


def test_a_template_with_more_behind_it_is_a_value() -> None:
    assert redact_text(f"password=${{A}}{CANARY}", RULES) == "password=[redacted]"
    assert redact_text(f"password=${{A:-{CANARY}}}", RULES) == "password=[redacted]"
    assert redact_text(f"DB_PASSWORD=${{A}} {CANARY}\nB=1", RULES) == "DB_PASSWORD=[redacted]\nB=1"
