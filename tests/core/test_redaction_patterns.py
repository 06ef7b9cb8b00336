"""Values: provider formats built at run time from parts, secrets in running text, and what must survive."""

import base64
import hashlib
import random
import string
import uuid
from collections.abc import Callable

import pytest

from audit_service.core.canonical import JSONValue
from audit_service.core.card_number import is_card_number
from audit_service.core.redaction import REDACTED, compile_ruleset, redact_event, redact_text, redact_value

RULES = compile_ruleset()
DRAWS = 40

ALNUM = string.ascii_letters + string.digits
UPPER = string.ascii_uppercase + string.digits
LOWER = string.ascii_lowercase + string.digits
HEX = "0123456789abcdef"
URLSAFE = ALNUM + "-_"
BASE64 = ALNUM + "+/"

# Prefix, alphabet, length, then more of the same: the parts of a secret never stand together in this file.
FORMATS: dict[str, list[tuple[str, str, int]]] = {
    "GitHub classic": [("gh" + "p_", ALNUM, 36)],
    "GitHub OAuth": [("gh" + "o_", ALNUM, 36)],
    "GitHub server": [("gh" + "s_", ALNUM, 36)],
    "GitHub fine-grained": [("github_" + "pat_", ALNUM, 22), ("_", ALNUM, 59)],
    "GitLab": [("gl" + "pat-", URLSAFE, 20)],
    "GitLab deploy": [("gl" + "dt-", URLSAFE, 20)],
    "GitLab runner": [("gl" + "rt-", URLSAFE, 20)],
    "AWS access key": [("AK" + "IA", UPPER, 16)],
    "AWS temporary key": [("AS" + "IA", UPPER, 16)],
    "Google API": [("AI" + "za", URLSAFE, 35)],
    "Google OAuth token": [("ya" + "29.", URLSAFE, 60)],
    "Google client secret": [("GOC" + "SPX-", URLSAFE, 28)],
    "Azure client secret": [("", ALNUM, 3), ("8Q" + "~", ALNUM, 34)],
    "Stripe secret": [("sk_" + "live_", ALNUM, 24)],
    "Stripe restricted": [("rk_" + "test_", ALNUM, 99)],
    "Stripe webhook": [("wh" + "sec_", ALNUM, 32)],
    "Slack bot": [("xo" + "xb-", string.digits, 12), ("-", string.digits, 12), ("-", ALNUM, 24)],
    "Slack user": [("xo" + "xp-", string.digits, 12), ("-", string.digits, 12), ("-", HEX, 32)],
    "Slack app": [("xa" + "pp-1-", UPPER, 11), ("-", string.digits, 13), ("-", HEX, 64)],
    "Slack webhook": [("https://hooks.slack." + "com/services/T", UPPER, 8), ("/B", UPPER, 8), ("/", ALNUM, 24)],
    "Discord bot": [("M", ALNUM, 23), (".", ALNUM, 6), (".", URLSAFE, 27)],
    "Discord webhook": [("https://discord." + "com/api/webhooks/", string.digits, 18), ("/", URLSAFE, 68)],
    "Telegram bot": [("", "123456789", 10), (":" + "AA", URLSAFE, 32), ("", ALNUM, 1)],
    "SendGrid": [("S" + "G.", URLSAFE, 22), (".", URLSAFE, 43)],
    "Mailgun": [("ke" + "y-", HEX, 32)],
    "Mailgun new": [("", HEX, 32), ("-", HEX, 8), ("-", HEX, 8)],
    "Mailchimp": [("", HEX, 32), ("-us", "12", 2)],
    "Brevo": [("xkey" + "sib-", HEX, 64), ("-", ALNUM, 16)],
    "Resend": [("r" + "e_", ALNUM, 8), ("_", ALNUM, 24)],
    "Twilio": [("S" + "K", HEX, 32)],
    "npm": [("np" + "m_", ALNUM, 36)],
    "PyPI": [("py" + "pi-AgEIcHlwaS5vcmc", URLSAFE, 60)],
    "RubyGems": [("ruby" + "gems_", HEX, 48)],
    "Docker Hub": [("dckr_" + "pat_", URLSAFE, 27)],
    "DigitalOcean": [("do" + "p_v1_", HEX, 64)],
    "DigitalOcean OAuth": [("do" + "o_v1_", HEX, 64)],
    "Hetzner": [("a1B2c3", ALNUM, 58)],
    "Cloudflare user": [("cf" + "ut_", ALNUM, 48)],
    "Cloudflare account": [("cf" + "at_", ALNUM, 48)],
    "Cloudflare legacy": [("a1B2c3", ALNUM, 34)],
    "AWS secret key": [("a1B2c3", BASE64.replace("/", ""), 34)],
    "OpenAI": [("s" + "k-", ALNUM, 48)],
    "OpenAI project": [("s" + "k-proj-", URLSAFE, 120)],
    "Anthropic": [("sk-" + "ant-api03-", URLSAFE, 93), ("", "A", 2)],
    "Hugging Face": [("h" + "f_", string.ascii_letters, 34)],
    "Groq": [("gs" + "k_", ALNUM, 52)],
    "Shopify": [("shp" + "at_", HEX, 32)],
    "Shopify shared": [("shp" + "ss_", HEX, 32)],
    "Square": [("sq0" + "atp-", URLSAFE, 22)],
    "Square new": [("EA" + "AAE", ALNUM, 59)],
    "Doppler": [("dp." + "pt.", ALNUM, 43)],
    "Doppler service": [("dp." + "st.prd.", ALNUM, 43)],
    "Vault": [("hv" + "s.", URLSAFE, 90)],
    "Vault legacy": [("s" + ".", ALNUM, 24)],
    "Terraform": [("", ALNUM, 14), (".atlas" + "v1.", URLSAFE, 67)],
    "Pterodactyl client": [("ptl" + "c_", ALNUM, 43)],
    "Pterodactyl application": [("ptl" + "a_", ALNUM, 43)],
    "Pelican": [("pac" + "c_", ALNUM, 43)],
    "ours": [("au" + "d_", ALNUM, 40)],
    "ours, longer": [("au" + "d_", ALNUM, 62)],
    "Laravel Sanctum": [("", "123456789", 2), ("|", ALNUM, 48)],
    "Laravel APP_KEY": [("base" + "64:", ALNUM, 43), ("=", "=", 0)],
    "Grafana": [("gl" + "sa_", ALNUM, 32), ("_", HEX, 8)],
    "New Relic": [("NR" + "AK-", UPPER, 27)],
    "Sentry": [("sn" + "tryu_", HEX, 64)],
    "Linear": [("lin_" + "api_", ALNUM, 40)],
    "Notion": [("nt" + "n_", ALNUM, 46)],
    "Airtable": [("pa" + "t", ALNUM, 14), (".", HEX, 64)],
    "Atlassian": [("ATA" + "TT3xFfGF0", URLSAFE, 180)],
    "Figma": [("fi" + "gd_", URLSAFE, 40)],
    "Postman": [("PM" + "AK-", HEX, 24), ("-", HEX, 34)],
    "Databricks": [("da" + "pi", HEX, 32)],
    "Supabase": [("sb" + "p_", HEX, 40)],
    "PlanetScale": [("pscale_" + "tkn_", URLSAFE, 43)],
    "Tailscale": [("ts" + "key-auth-", ALNUM, 12), ("-", ALNUM, 30)],
    "Docker swarm": [("SWM" + "TKN-1-", LOWER, 50), ("-", LOWER, 25)],
    "age": [("AGE-SECRET-" + "KEY-1", UPPER, 58)],
    "JWT": [("ey" + "J", ALNUM, 30), (".ey" + "J", ALNUM, 40), (".", URLSAFE, 43)],
    "bcrypt": [("$2" + "y$10$", ALNUM + "./", 53)],
    "argon2": [("$arg" + "on2id$v=19$m=65536,t=3,p=4$", ALNUM, 22), ("$", ALNUM, 43)],
    "sha512crypt": [("$" + "6$", ALNUM, 16), ("$", ALNUM, 86)],
    "Django": [("pbkdf2_" + "sha256$600000$", ALNUM, 22), ("$", BASE64, 43), ("=", "=", 0)],
    "PostgreSQL SCRAM": [("SCRAM-" + "SHA-256$4096:", BASE64, 22), ("==$", BASE64, 43), ("=:", BASE64, 43)],
    "MySQL native": [("*", "0123456789ABCDEF", 40)],
    "phpass": [("$" + "P$", ALNUM, 31)],
}
# Random letters only make a good test where the random part is all there is.
WHOLE_VALUE_ONLY = {"Hetzner", "Cloudflare legacy", "AWS secret key"}


def build(parts: list[tuple[str, str, int]], source: random.Random) -> str:
    return "".join(prefix + "".join(source.choices(letters, k=size)) for prefix, letters, size in parts)


@pytest.mark.parametrize("name", FORMATS)
def test_provider_formats_are_found_alone_and_inside_text(name: str) -> None:
    source = random.Random(name)  # noqa: S311 - the same made-up secrets in every run
    for _ in range(DRAWS):
        secret = build(FORMATS[name], source)
        shown = redact_text(secret, RULES)
        assert secret[-20:] not in shown, shown
        sentence = f"rotated {secret} on host-7, see the ticket"
        shown = redact_text(sentence, RULES)
        assert secret[-20:] not in shown
        assert shown.startswith("rotated ")
        assert shown.endswith(" on host-7, see the ticket")
        if name not in WHOLE_VALUE_ONLY:
            assert secret[-20:] not in redact_text(f'{{x:[{secret}]}},("{secret}")', RULES)


@pytest.mark.parametrize("label", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", "DSA "])
def test_private_keys_go_whole_with_any_line_ends_and_cut_off(label: str) -> None:
    body = "\n".join("".join(random.Random(i).choices(BASE64, k=64)) for i in range(5))  # noqa: S311 - no real key
    begin, end = "-----BEGIN " + label + "PRIVATE " + "KEY-----", "-----END " + label + "PRIVATE " + "KEY-----"
    key = f"{begin}\n{body}\n{end}"
    assert redact_text(key, RULES) == REDACTED
    assert redact_text(f"a {key} b", RULES) == f"a {REDACTED} b"
    assert redact_text(key.replace("\n", "\\n"), RULES) == REDACTED
    assert redact_text(f"{begin}\r\n{body}", RULES) == REDACTED
    public = key.replace("PRIVATE", "PUBLIC")
    assert redact_text(public, RULES) == public


HARMLESS_VALUES = [
    "550e8400-e29b-41d4-a716-446655440000", "01890a5d-ac96-774b-bcce-b302099a8057", "urn:uuid:" + str(uuid.UUID(int=7)),
    "d41d8cd98f00b204e9800998ecf8427e", "da39a3ee5e6b4b0d3255bfef95601890afd80709", hashlib.sha256(b"file").hexdigest(),
    hashlib.sha512(b"file").hexdigest(), "sha256-" + base64.b64encode(hashlib.sha256(b"x").digest()).decode(),
    "sha512-" + base64.b64encode(hashlib.sha512(b"x").digest()).decode(), 'W/"33a64df551425fcc55e4d42a148795d9f25f89d4"',
    "1.2.3", "v10.4.1-beta.2+build.7", "5.15.0-91-generic", "PostgreSQL 16.2 (Debian 16.2-1.pgdg120+2)",
    "DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "FR14 2004 1010 0505 0001 3M02 606", "NL91ABNA0417164300",
    "2026-11-22T10:15:00.123456+01:00", "20261122101500", "1732270500123456", "1732270500", "10:15", "0 3 * * *",
    "175928847299117063", "1183469875212345678", "+49 30 901820 12345", "+1 (555) 010-9999", "EAN 4006381333931",
    "203.0.113.9", "2001:db8::8a2e:370:7334", "192.168.0.1:8080", "00:1A:2B:3C:4D:5E", "AA:BB:CC:DD:EE:FF",
    "https://example.com/a/b?page=2&sort=name&q=keyboard", "http://host:8080/path/a@b.c", "ssh://git@example.com/x.git",
    "git@github.com:owner/repo.git", "mailto:ana@example.com", "postgresql://db.example.com:5432/app", "redis://cache:6379/0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
    "/var/lib/pterodactyl/volumes/5f2b/world/level.dat", r"C:\Users\ana\AppData\Local\Temp\x.log", "a-b-c-d-e-f",
    "The password policy: strict", "Ana changed the password", "password reset requested", "Tokens used: 12 of 40",
    "Basic authentication is enabled", "Bearer of good news", "the key question is: who", "Session timeout: 30",
    "server:power.start", "panel-7:evt-1029", "req-123", "us-east-1a", "application/json; charset=utf-8",
    "arn:aws:secretsmanager:us-east-1:123456789012:secret:name-AbCdEf", "arn:aws:iam::123456789012:role/admin",
    "btn-primary sk-circle task-list disk-usage", "monkey business", "keyboard: DE", "author=ana", "compass: NW",
    "primary_key=id", "sort_key: name", "token_count=4", "max_tokens=400", "password_policy=strict", "has_password: true",
    "cookie_consent=1", "12 eggs, 3 pins", "invoice 2026-0001234", "order 100000012345678", "SKU-0000-1111-2222-3333",
    "1234 5678 9012 3456", "0000 0000 0000 0001", "4111-1111-1111-1112", "3.141592653589793238", "-4111111111111111.5",
    "#ff00aa", "{}", "[]", '{"a": 1}', '["x", {"b": null}]', '"quoted"', "[draft] invoice", "{name}", "null", "true", "",
    "<b>bold</b>", "<p class='key'>x</p>", "SELECT id FROM users WHERE name = 'ana'", "x=1&y=2", "a=b", "é=è", "日本語: テスト",
    "Ungültiger Schlüssel: nein", "ключевое слово: тест", "cmd --verbose -n 3 --output json", "mysql -u root db", "curl -s https://x/",
    "md5: d41d8cd98f00b204e9800998ecf8427e", "AIDAI23HXD2O5EXAMPLE", "AROAEXAMPLEEXAMPLE12", "pk_live_publishable",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHvbKnU1YxJw0XqQm3sWQ0s0rXJ0J8bZ user@host",
    "EAA" + "A" * 90,
    "mysql -u root -p -h db shop", "ALTER ROLE x PASSWORD '' LOGIN", "a" * 40, "https://x.example/?code=abc&key=1",
    "1234  5678 9012 3456", "x .atlas" + "v1." + "b" * 60,
    "tool --password --verbose", "sent basic abc_def-ghi twice", "bot 2026-11-22T10:15:00",
    "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7",
]  # fmt: skip


def test_harmless_values_survive() -> None:
    hits = [(value, shown) for value in HARMLESS_VALUES if (shown := redact_text(value, RULES)) != value]
    assert len(HARMLESS_VALUES) >= 100
    assert hits == []


def test_at_most_1_percent_of_random_harmless_values_are_hit() -> None:
    """Ids, digests, images and numbers, 4,000 of them; in text, where card numbers count."""
    source = random.Random(7)  # noqa: S311 - no secrets at all

    def image() -> str:
        pixels = bytes(source.choices([0, 0, 0, 0, 255, source.randrange(256)], k=source.randrange(40, 3000)))
        noise = source.randbytes(source.randrange(40, 3000))
        return "data:image/png;base64," + base64.b64encode(source.choice([pixels, noise])).decode()

    kinds: list[Callable[[], str]] = [
        lambda: str(uuid.UUID(int=source.getrandbits(128))),
        lambda: source.randbytes(source.choice([16, 20, 32, 64])).hex(),
        image,
        lambda: base64.encodebytes(source.randbytes(600)).decode(),
        lambda: str(source.randrange(10 ** source.randrange(3, 20))),
        lambda: base64.b64encode(source.randbytes(32)).decode(),
        lambda: f"{source.randrange(40)}.{source.randrange(99)}.{source.randrange(10**5)}-rc{source.randrange(9)}",
        lambda: "DE" + "".join(source.choices(string.digits, k=20)),
    ]
    values = [source.choice(kinds)() for _ in range(4000)]
    hits = [value for value in values if redact_text(value, RULES) != value]
    assert len(hits) <= 0.01 * len(values), hits[:10]


IN_TEXT = [
    ("postgres://app:{}@db/x", "postgres://[redacted]@db/x"),
    ("see https://ana:{}@host/a?b=1 now", "see https://[redacted]@host/a?b=1 now"),
    ("amqp://u:pa/{}@mq:5672/vhost", "amqp://[redacted]@mq:5672/vhost"),
    ("https://example.com/cb?token={}&user=3", "https://example.com/cb?token=[redacted]&user=3"),
    ("/x?a=1&api_key={}&access_token={}#top", "/x?a=1&api_key=[redacted]&access_token=[redacted]"),
    ("/x?X-Amz-Signature={}&b=2", "/x?X-Amz-Signature=[redacted]&b=2"),
    ("https://x.blob.example/c?sv=1&sig={}", "https://x.blob.example/c?sv=1&sig=[redacted]"),
    ("psql --password={} -h db", "psql --password=[redacted] -h db"),
    ("tool --api-key {} --verbose", "tool --api-key [redacted] --verbose"),
    ("mysql -u root -p{} shop", "mysql -u root -p[redacted] shop"),
    ("sshpass -p {} ssh root@h", "sshpass -p [redacted] ssh root@h"),
    ("curl -u ana:{} https://x/", "curl -u ana:[redacted] https://x/"),
    ("curl -H 'Authorization: Bearer {}' https://x/", "curl -H 'Authorization: [redacted]' https://x/"),
    ('curl -H "X-Api-Key: {}" https://x/', 'curl -H "X-Api-Key: [redacted]" https://x/'),
    ("DB_HOST=db\nDB_PASS={}\nPORT=5", "DB_HOST=db\nDB_PASS=[redacted]\nPORT=5"),
    ("A=1\nAPP_KEY={} with spaces; and = signs\nB=2", "A=1\nAPP_KEY=[redacted]\nB=2"),
    ("export TOKEN='{} x' && run", "export TOKEN='[redacted]' && run"),
    ("user: ana\npassword: {} two words\nrole: x", "user: ana\npassword: [redacted]\nrole: x"),
    ("Login failed, password: {}", "Login failed, password: [redacted]"),
    ("The API key: {}", "The API key: [redacted]"),
    ("Neues Passwort: {}", "Neues Passwort: [redacted]"),
    ("Mot de passe : {}", "Mot de passe : [redacted]"),
    ("пароль: {}", "пароль: [redacted]"),
    ("パスワード:{}", "パスワード:[redacted]"),
    ("p4ssw0rd={}", "p4ssw0rd=[redacted]"),
    ("$config['db_password'] = '{}';", "$config['db_password'] = '[redacted]';"),
    ("[password] => {}", "[password] => [redacted]"),
    ("{{'password': '{}', 'a': 1}}", "{'password': '[redacted]', 'a': 1}"),
    ('error near {{\\"secret\\":\\"{}\\"}}', 'error near {\\"secret\\":\\"[redacted]\\"}'),
    ("<user><password>{}</password></user>", "<user><password>[redacted]</password></user>"),
    ('a:1:{{s:8:"password";s:7:"{}";}}', 'a:1:{s:8:"password";s:7:"[redacted]";}'),
    ("CREATE USER x IDENTIFIED BY '{}'", "CREATE USER x IDENTIFIED BY '[redacted]'"),
    ("ALTER ROLE x PASSWORD '{}' LOGIN", "ALTER ROLE x PASSWORD '[redacted]' LOGIN"),
    ("Server=db;User Id=sa;Password={};Timeout=3", "Server=db;User Id=sa;Password=[redacted];Timeout=3"),
    ("Cookie: sid={}; theme=dark", "Cookie: [redacted]"),
    ("Set-Cookie: s={}; Path=/", "Set-Cookie: [redacted]"),
    ("https://" + "a1b2c3d4" * 4 + "@host/{}", "https://[redacted]@host/hunter2"),
    ("https://ana%3A{}@host/", "https://[redacted]@host/"),
    ("next=/cb%3Ftoken%3D{}", "next=/cb%3Ftoken%3D[redacted]"),
    ("パスワード：{}", "パスワード：[redacted]"),
    ("密码＝{}", "密码＝[redacted]"),
    ("token: Bearer {}0123456789 end", "token: [redacted] [redacted] end"),
    ("Authorization: Bearer {}\nHost: x", "Authorization: [redacted]\nHost: x"),
    ('X: {{"pin": {{"a": "{}"}}, "b": 1}} y', 'X: {"pin": [redacted], "b": 1} y'),
    ("ana:password:{}", "ana:password:[redacted]"),
    ("otpauth://totp/x?secret={}", "[redacted]"),
    ('{{"deep": [{{"db_password": "{}"}}]}}', '{"deep":[{"db_password":"[redacted]"}]}'),
    ('"{{\\"token\\": \\"{}\\"}}"', '"{\\"token\\":\\"[redacted]\\"}"'),
    ('{{"a":"password={}","n":1}}', '{"a":"password=[redacted]","n":1}'),
]


@pytest.mark.parametrize(("template", "expected"), IN_TEXT, ids=[expected[:40] for _, expected in IN_TEXT])
def test_secrets_named_in_running_text_lose_their_value_only(template: str, expected: str) -> None:
    secret = "hun" + "ter2"
    text = template.format(*[secret] * template.count("{}"))
    shown = redact_text(text, RULES)
    assert shown.removesuffix("#top") == expected
    assert redact_text(shown, RULES) == shown


def test_a_basic_credential_is_one_only_when_it_decodes_to_a_pair() -> None:
    pair = base64.b64encode(b"ana:" + b"hunter2").decode()
    assert redact_text(f"sent Basic {pair} twice", RULES) == "sent Basic [redacted] twice"
    assert redact_text("sent Basic authorisations twice", RULES) == "sent Basic authorisations twice"


def test_a_pattern_that_finds_the_placeholder_itself_leaves_only_the_placeholder() -> None:
    rules = compile_ruleset(extra_patterns=["redacted"])
    assert redact_text("was redacted", rules) == REDACTED
    assert redact_text(REDACTED, rules) == REDACTED
    assert redact_value(["was redacted", "kept"], rules) == [REDACTED, "kept"]


def test_texts_joined_by_nul_are_numbered_and_a_missing_nul_does_no_harm() -> None:
    patterns = RULES.patterns
    assert patterns.suspect_parts(b"\0plain\0token=1\0x\0[1]\0pin: 1\0") == [2, 4, 5]
    assert patterns.suspect_parts(b"token=1") == [0]


def test_patterns_of_the_operator_also_read_json_text_as_a_whole() -> None:
    rules = compile_ruleset(extra_patterns=[r'"a":\d+'])
    assert redact_text('{"a":12,"b":1}', rules) == '{[redacted],"b":1}'


def test_json_with_a_name_twice_is_read_as_text() -> None:
    text = '{"password": "%s", "password": "x"}' % ("hun" + "ter2")
    assert "hunter2" not in redact_text(text, RULES)


def test_escaped_letters_hide_nothing_in_json_that_can_not_be_read() -> None:
    token = "gh" + "p_" + "a1B2c3D4e5F6" * 3
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in token)
    assert redact_text(f'["{escaped}"]', RULES) == '["[redacted]"]'
    assert redact_text(f'["\\ud800", "{escaped}"', RULES) == '["\\ud800", "[redacted]"'
    harmless = '["\\ud800", "\\u0067lass"'
    assert redact_text(harmless, RULES) == harmless


def test_json_too_deep_for_the_parser_is_replaced() -> None:
    text = "[" * 5000 + "]" * 5000
    assert redact_text(text, RULES) == REDACTED
    assert redact_text("[" * 3 + "]" * 3, RULES) == "[[[]]]"


CARDS = ["4111" + "1111" * 3, "5555" + "5555" * 2 + "4444", "3782" + "822463" + "10005", "6011" + "1111" * 2 + "1117"]


@pytest.mark.parametrize("digits", CARDS)
def test_card_numbers_go_in_text_whatever_their_grouping(digits: str) -> None:
    sizes = [4, 6, 5] if len(digits) == 15 else [4, 4, 4, 4]
    for joint in ("", " ", "-", "  "):
        groups, position = [], 0
        for size in sizes:
            groups.append(digits[position : position + size])
            position += size
        number = joint.join(groups)
        assert redact_text(f"card {number}, paid", RULES) == "card [redacted], paid"
        assert redact_value({"note": number}, RULES) == {"note": REDACTED}
        wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
        assert redact_text(f"card {wrong}, paid", RULES) == f"card {wrong}, paid"


def test_card_numbers_as_integers_go_only_under_names_of_cards() -> None:
    number = int(CARDS[0])
    assert redact_value({"cc": number, "cards": [number], "pan": float(number)}, RULES) == {
        "cc": REDACTED, "cards": [REDACTED], "pan": REDACTED,
    }  # fmt: skip
    assert redact_value({"card": "4111.1111" + ".1111.1111", "cc": 5.5}, RULES) == {"card": REDACTED, "cc": 5.5}
    kept: JSONValue = {"order_id": number, "n": number, "order_number": str(number), "cc": number + 1, "card": True}
    assert redact_value(kept, RULES) is kept


def test_ids_of_the_event_are_not_taken_for_card_numbers() -> None:
    number = CARDS[0]
    event: dict[str, JSONValue] = {
        "id": number,
        "target": {"type": "order", "id": number, "name": number},
        "server_id": number,
    }
    redacted, _ = redact_event(event, [], RULES)
    assert redacted == {"id": number, "target": {"type": "order", "id": number, "name": REDACTED}, "server_id": number}


def test_luhn_and_issuers() -> None:
    assert all(map(is_card_number, CARDS))
    assert not any(map(is_card_number, ["4111111111111112", "1111111111111117", "0" * 16, "", "4", "9" * 40]))


def test_patterns_of_the_operator_run_and_broken_ones_stop_the_start() -> None:
    rules = compile_ruleset(extra_patterns=[r"EMP-\d{6}", r"^internal$"])
    assert redact_text("by EMP-123456 today", rules) == "by [redacted] today"
    assert redact_text("internal", rules) == REDACTED
    assert redact_text("internal use", rules) == "internal use"
    event, changes = redact_event(
        {"description": "internal", "reason": "EMP-123456"}, [{"path": "/a", "op": "add", "new": "internal"}], rules
    )
    assert event == {"description": REDACTED, "reason": REDACTED}
    assert changes == [{"path": "/a", "op": "add", "new": REDACTED}]
    for broken in ("(", "(?=x)", r"(a)\1", "x*"):
        with pytest.raises(ValueError, match=r"RE2|empty") as caught:
            compile_ruleset(extra_patterns=[broken])
        assert repr(broken) in str(caught.value)
