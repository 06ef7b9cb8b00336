"""Logs that were sealed wrong and are signed as they are: what a verifier of hashes alone would pass."""

from collections.abc import Iterator

from audit_service.core.chain import format_origin, genesis_hash
from audit_service.core.entry import commitment
from tests.support.bundles import (
    LOG_KEY,
    SERVICE,
    START_US,
    MadeLog,
    pack,
)
from tests.support.evidence_base import BODY, NONCE, Case, refused


def sealed(body: str, kind: str = "event") -> tuple[bytes, tuple[str, ...]]:
    """A bundle of a log that sealed this body."""
    log = MadeLog()
    log.event()
    log.seal(body, kind)
    log.event()
    return pack(log.bundle()), (log.vkey,)


def sealed_value(value: str) -> tuple[bytes, tuple[str, ...]]:
    """A bundle of a log that sealed this value in a disclosure, with its right commitment."""
    log = MadeLog()
    salt = bytes(range(32))
    body = f'{{"action":"a.b","nonce":"{NONCE}","sd":{{"x":"{commitment("x", salt, value).hex()}"}},"v":1}}'
    log.seal(body, disclosures={"x": (salt, value)})
    return pack(log.bundle()), (log.vkey,)


def canonical_bodies() -> Iterator[str]:
    rest = f'"nonce":"{NONCE}","v":1}}'
    yield BODY
    yield f'{{"action":"a.b","extra":{{"big":18446744073709551615,"low":-9223372036854775808,"x":[]}},{rest}'
    yield f'{{"action":"é\\n\\"\\\\\\u0001\x7f\u2028","category":"😀",{rest}'
    yield f'{{"action":"","fields":["","a"],{rest}'
    yield f'{{"action":"a","nonce":"{NONCE}","sd":{{}},"v":1,"x":"y"}}'
    yield f'{{"action":"a","nonce":"{NONCE}","source":{{"seq":0}},"v":1}}'
    yield f'{{"action":"a","nonce":"{NONCE}","source":{{"id":"s","seq":-5}},"v":1,"verb":"READ"}}'
    yield f'{{"action":"a","deep":{"[" * 127}{"]" * 127},{rest}'


def _wrong_bodies() -> Iterator[str]:
    rest = f'"nonce":"{NONCE}","v":1}}'
    yield from ("", "[]", "null", '"x"', "1", BODY + " ", " " + BODY, BODY[:-1])
    yield BODY.replace(",", ", ", 1)
    yield f'{{"action":"a","action":"b",{rest}'
    yield f'{{"action":"a","nonce":"{NONCE}","sd":{{}},"sd":{{}},"v":1}}'
    yield f'{{"nonce":"{NONCE}","action":"a","v":1}}'
    yield f'{{"action":"\\u0041",{rest}'
    yield f'{{"action":"\\/",{rest}'
    yield f'{{"action":"\\u000A",{rest}'
    yield f'{{"action":"\\u000a",{rest}'
    yield f'{{"action":"\\ud800",{rest}'
    yield f'{{"action":"a","x":01,{rest}'.replace('"x":01,"nonce"', '"nonce"').replace('"v":1}', '"v":1,"x":01}')
    for number in (
        "-0",
        "1.0",
        "1e5",
        "1E5",
        "0.10",
        "1e400",
        "NaN",
        "Infinity",
        "18446744073709551616",
        "1e21x",
        "+1",
        ".5",
        "1.",
    ):
        yield f'{{"action":"a","nonce":"{NONCE}","v":1,"x":{number}}}'
    yield f'{{"action":"a","deep":{"[" * 128}{"]" * 128},{rest}'
    yield f'{{"action":"a","deep":{"[" * 5000}{"]" * 5000},{rest}'
    yield f'{{"action":1,{rest}'
    yield '{"action":"a","v":1}'
    yield '{"action":"a","nonce":"AAAA","v":1}'
    yield f'{{"action":"a","nonce":"{NONCE[:-3]}B==","v":1}}'
    for commitments in ("null", "[]", '{"ip":1}', '{"ip":"00"}', f'{{"ip":"{"A" * 64}"}}', '""'):
        yield f'{{"action":"a","nonce":"{NONCE}","sd":{commitments},"v":1}}'
    yield f'{{"action":"a","nonce":"{NONCE}","v":1,"\U0001f600":1,"\ufb33":1}}'.replace(
        '"\U0001f600":1,"\ufb33":1', '"\ufb33":1,"\U0001f600":1'
    )
    digest = "0" * 64
    yield f'{{"action":"a","nonce":"{NONCE}","sd":{{"ip":"{digest}","actor":"{digest}"}},"v":1}}'


def canonical_values() -> Iterator[str]:
    yield from (
        "null",
        "true",
        "0",
        "-1",
        '""',
        "[]",
        "{}",
        "1e+21",
        "1e-7",
        "0.000001",
        "100000000000000000000",
        "0.1",
        "-1.5",
    )
    yield from (
        "5e-324",
        "1.7976931348623157e+308",
        "123456789012345680000",
        "9007199254740993",
        "333333333.3333333",
        "1.5e+300",
    )
    yield '{"a":[1,{"b":null}],"\U0001f600":1,"\ufb33":2}'


def _wrong_values() -> Iterator[str]:
    yield from (
        "",
        " 1",
        "1 ",
        "1.0",
        "1e21",
        "1E+21",
        "1e-07",
        "0.0000001",
        "-0",
        "-0.0",
        "1e400",
        "nul",
        '{"a":1,"a":1}',
        "[1, 2]",
    )
    yield from (
        '{"b":1,"a":1}',
        '{"\ufb33":2,"\U0001f600":1}',
        '"\\u0041"',
        '"\t"',
        "123456789012345678901",
        "0.10",
        "1.50",
        "[1,]",
        "[",
        '"',
    )
    yield from (
        "1.5e300",
        "123456789012345680001",
        "NaN",
        "[" * 129 + "]" * 129,
        "00",
        "- 1",
        "\ufeff1",
        "\u00a01",
        "\u0661",
    )


def sealed_wrong_cases() -> Iterator[Case]:
    """Logs that were sealed wrong and are signed as they are."""
    for number, body in enumerate(_wrong_bodies()):
        yield Case(f"body sealed wrong {number}", *sealed(body), frozenset({"bodies"}), 1)
    for number, value in enumerate(_wrong_values()):
        yield Case(f"value sealed wrong {number}", *sealed_value(value), frozenset({"disclosures"}), 1)
    for version in ("2", "0", "true", '"1"', "1.5", "null", "[]"):
        yield Case(f"body of version {version}", *sealed(BODY.replace('"v":1', f'"v":{version}')), exit=2)
    yield Case("body of no version", *sealed("{}"), exit=2)
    for name, fails, given in (
        ("time backwards", "headers", {"at_us": START_US - 1}),
        ("a link to nowhere", "links", {"prev_hash": bytes(32)}),
        ("the hash of another body", "bodies", {"body_hash": bytes(32)}),
        ("an epoch later", "headers", {"origin": format_origin(SERVICE, LOG_KEY, 2)}),
    ):
        log = MadeLog()
        log.event()
        log.seal(BODY, **given)
        if name == "an epoch later":
            log.epoch = 2
        log.event()
        yield refused(f"sealed with {name}", log.bundle(), fails, log=log)
    beyond = MadeLog()
    beyond.event()
    beyond.control("resume", {})
    beyond.epoch = 1
    yield refused("an epoch beyond the checkpoint's", beyond.bundle(), "headers", "controls", log=beyond)
    back = MadeLog()
    back.event()
    back.control("resume", {})
    back.seal(BODY, origin=format_origin(SERVICE, LOG_KEY, 1))
    yield refused("an epoch that goes back", back.bundle(), "headers", log=back)
    filtered = back.bundle(chosen=lambda made: made.seq != 0)
    yield refused("an epoch that goes back, filtered", filtered, "headers", log=back)
    apart = MadeLog(epoch=2)
    apart.event()
    apart.event()
    apart.seal(BODY, origin=format_origin(SERVICE, LOG_KEY, 1))
    yield refused(
        "an epoch that goes back, apart", apart.bundle(1, chosen=lambda made: made.seq in {1, 2}), "headers", log=apart
    )
    gap = apart.bundle(0, chosen=lambda made: made.seq in {0, 2})
    yield refused("a log that begins with epoch 2", gap, "headers", "links", log=apart)
    apart.event()
    apart.seal(BODY, origin=format_origin(SERVICE, LOG_KEY, 1))
    yield refused(
        "an epoch that goes back between others",
        apart.bundle(1, chosen=lambda made: made.seq in {1, 4}),
        "headers",
        log=apart,
    )
    late = MadeLog(epoch=2)
    late.seal(BODY, prev_hash=genesis_hash(format_origin(SERVICE, LOG_KEY, 1)))
    yield refused("a log that begins with epoch 2, linked right", late.bundle(), "headers", log=late)
    same = MadeLog()
    same.event()
    same.control("resume", {})
    same.entries.pop()
    same.epoch = 1
    body = '{"action":"audit.resume","details":{},"nonce":"' + NONCE + '","v":1}'
    same.seal(body, "resume")
    yield refused("a resume that raises no epoch", same.bundle(), "headers", log=same)
    genesis = MadeLog()
    genesis.seal(BODY, prev_hash=bytes(32))
    yield refused("a first entry after nothing", genesis.bundle(), "links", log=genesis)
    odd = MadeLog()
    odd.event()
    odd.seal(BODY, prev_hash=bytes(32))
    yield refused("the first of a range after another than the proof's", odd.bundle(1, 2), "links", log=odd)
    for kind in ("erase", "hold"):
        yield Case(f"a control body of another kind, {kind}", *sealed(BODY, kind), frozenset({"bodies", "controls"}), 1)
    lost = MadeLog()
    lost.event()
    lost.control("hold", {})
    lost.entries[1].body = None
    lost.control("drop", {"ranges": [[0, 2]]})
    lost.entries[0].body, lost.entries[0].disclosures = None, {}
    yield refused("a control entry without its body", lost.bundle(), "bodies", "controls", log=lost)
