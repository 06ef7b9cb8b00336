"""Claims: which tokens are in force and for us, and what they grant by the operator's mapping."""

import doctest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import claims
from audit_service.core.api_key import SCOPES
from audit_service.core.claims import LIFETIME_LIMIT_SECONDS, Grant, check_claims, compile_mapping, map_claims
from audit_service.errors import InvalidTokenError, UngrantedTokenError

NOW, LEEWAY = 1_800_000_000, 30
ISSUER, AUDIENCE = "https://id.example.com/realms/panel", "https://audit.example.com"
GOOD: dict[str, Any] = {
    "iss": ISSUER, "aud": AUDIENCE, "sub": "u7", "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 300,
    "org": "acme", "roles": ["reader"], "servers": ["s1", 2],
}  # fmt: skip
WRITTEN: dict[str, Any] = {
    "tenant": {"claim": "org", "default": "fallback"},
    "scopes": {
        "claim": "roles",
        "map": {"reader": ["read"], "auditor": ["read", "export", "verify"], "root": ["admin", "ingest"], "nothing": []},
    },
    "servers": {"claim": "servers", "all": "*"},
}  # fmt: skip
CEILING = ("read", "export", "verify")


def test_the_examples_of_the_module_hold() -> None:
    """The format page of the module runs."""
    result = doctest.testmod(claims)
    assert (result.failed, result.attempted > 0) == (0, True)


# --- in force and for us ---


def check(**changed: Any) -> None:
    """`check_claims` of good claims with others instead; one given as `...` is left out."""
    changed_claims = {name: value for name, value in (GOOD | changed).items() if value is not ...}
    check_claims(changed_claims, issuer=ISSUER, audience=AUDIENCE, leeway_seconds=LEEWAY, now=NOW)


GOOD_CHANGES: list[dict[str, Any]] = [
    {}, {"aud": [AUDIENCE]}, {"aud": ["other", AUDIENCE]}, {"nbf": ...}, {"iat": ...}, {"exp": NOW + 0.5}, {"exp": NOW - LEEWAY + 1},
    {"nbf": NOW + LEEWAY}, {"iat": NOW + LEEWAY}, {"exp": NOW + LIFETIME_LIMIT_SECONDS + LEEWAY}, {"iat": 0}, {"typ": "Bearer"},
    {"more": {"deep": [1]}},
]  # fmt: skip


@pytest.mark.parametrize("changed", GOOD_CHANGES, ids=repr)
def test_a_token_in_force_and_for_us_is_good(changed: dict[str, Any]) -> None:
    """Leeway included, to the second."""
    check(**changed)


NO_TIMES: list[Any] = [
    None,
    "",
    str(NOW),
    "never",
    True,
    [],
    {},
    -1,
    float("nan"),
    float("inf"),
    1 << 53,
    1 << 64,
    10**400,
    1e300,
]
BAD_VALUES: dict[str, list[Any]] = {
    "exp": [..., *NO_TIMES, 0, NOW - LEEWAY, NOW - LEEWAY - 0.001, NOW + LIFETIME_LIMIT_SECONDS + LEEWAY + 1],
    "nbf": [*NO_TIMES, NOW + LEEWAY + 1],
    "iat": [*NO_TIMES, NOW + LEEWAY + 1],
    "aud": [
        ..., None, "", [], {}, 5, AUDIENCE + "/", AUDIENCE[:-1], AUDIENCE.upper(), [[AUDIENCE]], {AUDIENCE: 1}, "other", ["other"],
        f"{AUDIENCE} other",
        f"other,{AUDIENCE}", AUDIENCE + "\0", "*",
    ],
    "iss": [
        ..., None, "", 5, [ISSUER], ISSUER + "/", ISSUER.upper(), ISSUER.replace("id.", "ID."), ISSUER.replace("https", "http"),
        ISSUER + "/../panel",
        ISSUER[:-1], ISSUER + ".evil.example", ISSUER + " ", "https://id.example.com", ISSUER + "?",
    ],
    "typ": ["ID", "Refresh", "Offline", "Logout"],
    "cnf": [{"jkt": "x"}, None],
    **{name: ["x", None, {}] for name in ("nonce", "at_hash", "c_hash", "s_hash", "events")},
}  # fmt: skip
BAD_CHANGES = [{name: value} for name, values in BAD_VALUES.items() for value in values]


@pytest.mark.parametrize("changed", BAD_CHANGES, ids=lambda changed: repr(changed)[:60])
def test_any_other_token_is_refused(changed: dict[str, Any]) -> None:
    """One claim is changed: the rest is good."""
    with pytest.raises(InvalidTokenError):
        check(**changed)


# --- what is granted ---


def grant(written: dict[str, Any] | None = None, ceiling: tuple[str, ...] = CEILING, **changed: Any) -> Grant:
    """What good claims with others instead grant under WRITTEN with other rules instead; `...` leaves out."""
    rules = {name: value for name, value in (WRITTEN | (written or {})).items() if value is not ...}
    changed_claims = {name: value for name, value in (GOOD | changed).items() if value is not ...}
    return map_claims(changed_claims, compile_mapping(rules, ceiling))


def test_claims_become_tenant_scopes_servers_and_a_name() -> None:
    """Each by its rule."""
    found = grant()
    assert (found.tenant, found.scopes, found.server_ids) == ("acme", frozenset({"read"}), frozenset({"s1", "2"}))
    assert found.ends_at == GOOD["exp"]


def test_the_name_is_of_issuer_and_subject_together() -> None:
    """Twelve hex digits, and another for each of both; no way to shift characters from one to the other."""
    name = grant().key_id
    assert name == grant(roles=["auditor"], servers=["*"]).key_id
    assert name.startswith("jwt:")
    assert len(name) == 16
    int(name[4:], 16)
    others = {
        grant(sub="u8").key_id,
        grant(iss=ISSUER + "u", sub="7").key_id,
        grant(iss=ISSUER + '","u', sub="7").key_id,
    }
    assert len(others | {name}) == 4


SCOPES_OF: list[tuple[Any, set[str]]] = [
    (["reader"], {"read"}), (["auditor"], {"read", "export", "verify"}), (["reader", "stranger", ""], {"read"}), ("reader", {"read"}),
    ("openid reader", {"read"}), ("reader auditor", {"read", "export", "verify"}), (["root", "reader"], {"read"}),
]  # fmt: skip
NO_SCOPES: list[Any] = [
    ..., None, [], "", "openid profile", ["root"], ["nothing"], ["admin"], ["read"], "read", ["Reader"], ["reader "],
    ["reader auditor"], "reader,auditor", 5, True, {"reader": True}, {"map": ["reader"]}, ["reader", 5], ["reader", None], [["reader"]],
]  # fmt: skip


@pytest.mark.parametrize(("roles", "scopes"), SCOPES_OF)
def test_scopes_are_those_mapped_and_under_the_ceiling(roles: Any, scopes: set[str]) -> None:
    """What is not in the map grants nothing."""
    assert grant(roles=roles).scopes == scopes


@pytest.mark.parametrize("roles", NO_SCOPES, ids=repr)
def test_without_a_mapped_scope_nothing_is_granted(roles: Any) -> None:
    """Nor for the name of a scope itself, when the map does not have it."""
    with pytest.raises(UngrantedTokenError):
        grant(roles=roles)


@given(
    st.lists(st.sampled_from(["reader", "auditor", "root", "nothing", "stranger"])),
    st.sets(st.sampled_from(SCOPES), min_size=1),
)
def test_no_claim_goes_beyond_the_ceiling(roles: list[str], ceiling: set[str]) -> None:
    """Whatever the map says."""
    try:
        found = grant(ceiling=tuple(ceiling), roles=roles)
    except UngrantedTokenError:
        return
    assert found.scopes
    assert found.scopes <= ceiling


TENANTS: list[tuple[dict[str, Any], Any, str | None]] = [
    ({"claim": "org", "default": "fallback"}, "acme", "acme"), ({"claim": "org", "default": "fallback"}, ..., "fallback"),
    ({"claim": "org"}, ..., None), ({"default": "only"}, "acme", "only"), ({"claim": "org", "map": {"acme": "a"}}, "acme", "a"),
    ({"claim": "org", "map": {"acme": "a"}}, "other", None), ({"claim": "org", "map": {"acme": "a"}, "default": "d"}, "other", None),
    ({"claim": "org", "map": {"acme": "a"}, "default": "d"}, "a", None),
    # Somebody may call their organisation at the provider as the service calls its own tenant.
    ({"claim": "org"}, "system", None), ({"claim": "org", "default": "d"}, "system", None),
    ({"claim": "org", "map": {"acme": "a"}}, "system", None), ({"claim": "org", "map": {"ops": "system"}}, "ops", "system"),
    *(({"claim": "org", "default": "d"}, value, None) for value in (None, "", 5, True, [], ["acme"], {"acme": 1}, "x" * 256, "a\0b")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "org", "tenant"), TENANTS)
def test_a_tenant_is_named_by_its_claim(rule: dict[str, Any], org: Any, tenant: str | None) -> None:
    """The default is for a claim that is missing, never for one that is wrong."""
    if tenant is not None:
        assert grant({"tenant": rule}, org=org).tenant == tenant
        return
    with pytest.raises(UngrantedTokenError):
        grant({"tenant": rule}, org=org)


SERVERS: list[tuple[Any, set[str] | None]] = [
    ([], set()), (["s1"], {"s1"}), ([1, "1", 2], {"1", "2"}), (["*"], None), (["s1", "*"], None), (["**"], {"**"}), (["s1"] * 1000, {"s1"}),
]  # fmt: skip
NO_SERVERS: list[Any] = [
    ..., None, "s1", "*", 5, True, {}, {"s1": 1}, [None], [True], [1.5], [["s1"]], ["s1", None], [""], ["x" * 256], ["a\0"],
    ["s1"] * 1001, ["*"] * 1001,
]  # fmt: skip


@pytest.mark.parametrize(("servers", "server_ids"), SERVERS)
def test_servers_are_listed(servers: Any, server_ids: set[str] | None) -> None:
    """An empty list is a limit too; only the marker lifts it."""
    assert grant(servers=servers).server_ids == server_ids


@pytest.mark.parametrize("servers", NO_SERVERS, ids=lambda servers: repr(servers)[:30])
def test_without_a_list_of_servers_nothing_is_granted(servers: Any) -> None:
    """A limit that cannot be read is not no limit."""
    with pytest.raises(UngrantedTokenError):
        grant(servers=servers)


def test_without_a_rule_for_servers_a_token_is_for_all() -> None:
    """And without a marker none lifts the limit."""
    assert grant({"servers": ...}).server_ids is None
    assert grant({"servers": {"claim": "servers"}}, servers=["*"]).server_ids == frozenset({"*"})


@pytest.mark.parametrize("sub", [..., None, "", 5, True, [], {}, "x" * 256, "a\0b"], ids=lambda sub: repr(sub)[:20])
def test_without_a_subject_a_token_is_nobody_s(sub: Any) -> None:
    """401, not 403."""
    with pytest.raises(InvalidTokenError):
        grant(sub=sub)


def test_claims_are_named_plainly_or_by_pointer() -> None:
    """Names with dots and colons are names; pointers go through objects only."""
    plain = {"scopes": {"claim": "https://panel.example/roles", "map": {"r": ["read"]}}}
    named: dict[str, Any] = {"https://panel.example/roles": ["r"]}
    assert grant(plain, **named).scopes == {"read"}
    deep = {"scopes": {"claim": "/realm_access/a~1b~0c", "map": {"r": ["read"]}}}
    assert grant(deep, realm_access={"a/b~c": ["r"]}).scopes == {"read"}
    assert grant({"subject": "/user/id"}, user={"id": "u7"}).key_id == grant().key_id
    wrong: list[Any] = [..., None, "r", ["r"], {}, {"a/b~c": None}, {"a/b~c": {"0": "r"}}]
    for value in wrong:
        with pytest.raises(UngrantedTokenError):
            grant(deep, realm_access=value)


# --- configuration ---


WRONG_RULES: list[dict[str, Any]] = [
    {"tenant": ...}, {"scopes": ...}, {"tenant": {}}, {"tenant": {"map": {"a": "b"}}}, {"tenant": {"claim": ""}},
    {"tenant": {"default": ""}}, {"tenant": "org"}, {"tenant": {"claim": "org", "more": 1}}, {"tenant": {"claim": 5}},
    {"tenant": {"claim": "org", "map": {"a": 5}}}, {"scopes": {"claim": "roles"}}, {"scopes": {"claim": "roles", "map": {}}},
    {"scopes": {"map": {"a": ["read"]}}}, {"scopes": {"claim": "roles", "map": {"a": ["all"]}}},
    {"scopes": {"claim": "roles", "map": {"a": "read"}}}, {"scopes": {"claim": "roles", "map": {"a": []}}}, {"servers": {}},
    {"servers": {"claim": "s", "all": 5}}, {"servers": None, "subject": ""}, {"subject": None}, {"more": {}},
    {"tenant": {"claim": "org", "default": "system"}},
]  # fmt: skip


@pytest.mark.parametrize("written", WRONG_RULES, ids=repr)
def test_a_mapping_that_makes_no_sense_is_refused(written: dict[str, Any]) -> None:
    """Naming the setting, so that the service does not start half-configured."""
    with pytest.raises(ValueError, match="AUDIT_OIDC_CLAIMS"):
        grant(written)


@pytest.mark.parametrize("ceiling", [(), ("all",), ("read", "Read")])
def test_a_ceiling_names_scopes(ceiling: tuple[str, ...]) -> None:
    """Known ones."""
    with pytest.raises(ValueError, match="AUDIT_OIDC_MAX_SCOPES"):
        grant(ceiling=ceiling)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*GOOD, "typ", "cnf"]), JSON_VALUES))
def test_no_claims_are_an_unplanned_error(changed: dict[str, Any]) -> None:
    """Refused or granted, nothing else; only claims of our issuer come to be granted anything."""
    for outcome in (lambda: check(**changed), lambda: grant(**(changed | {"iss": ISSUER}))):
        try:
            outcome()
        except (InvalidTokenError, UngrantedTokenError) as error:
            assert error.reason  # noqa: PT017 - other errors must go through
