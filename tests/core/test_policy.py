"""Trust policies: what is read, what is refused and where, and when the quorum is reached."""

import doctest
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import policy as policy_module
from audit_service.core.note import VerifiedSignature
from audit_service.core.policy import POLICY_LIMIT_BYTES, Group, Policy, check_quorum, parse_policy, policy_of_key
from audit_service.core.vkey import KeyKind, Signer, VerifierKey, format_vkey, parse_vkey
from audit_service.errors import QuorumError, TrustInputError
from tests.support.notes import LOG_VKEY, WITNESS_VKEY

LOG = parse_vkey(LOG_VKEY)
WITNESSES = [
    Signer.from_seed(f"w{number}.example", bytes([number]) * 32).verifier(KeyKind.COSIGNATURE) for number in range(1, 6)
]
V1, V2, V3, V4, V5 = map(format_vkey, WITNESSES)

TWO_LEVELS = f"""# Two organisations
log {LOG_VKEY} https://audit.example.com/

witness X1 {V1} https://w1.example/
\twitness  X2\t{V2}
witness X3 {V3}   \t
  # and the other one
group X 2 X1 X2 X3
witness Y1 {V4}
witness Y2 {V5}
group Y any Y1 Y2
group both all X Y
quorum both
"""


def signed_by(*keys: VerifierKey) -> list[VerifiedSignature]:
    """Verified signatures by these keys."""
    return [VerifiedSignature(key, None if key.kind is KeyKind.ED25519 else 1) for key in keys]


def is_reached(policy: Policy, *keys: VerifierKey) -> bool:
    """Whether the quorum is."""
    try:
        check_quorum(policy, signed_by(*keys))
    except QuorumError:
        return False
    return True


def test_the_examples_of_the_module_hold() -> None:
    """The format page of the module runs."""
    result = doctest.testmod(policy_module)
    assert (result.failed, result.attempted > 2) == (0, True)


def test_a_policy_of_two_levels_is_read() -> None:
    """Comments, blanks, tabs and URLs are laid aside."""
    policy = parse_policy(TWO_LEVELS.encode())
    assert policy.logs == (LOG,)
    assert policy.witnesses == dict(zip(("X1", "X2", "X3", "Y1", "Y2"), WITNESSES, strict=True))
    assert policy.groups == {
        "X": Group(2, ("X1", "X2", "X3")),
        "Y": Group(1, ("Y1", "Y2")),
        "both": Group(2, ("X", "Y")),
    }
    assert policy.quorum == "both"
    assert policy.keys == (LOG, *WITNESSES)
    assert parse_policy(TWO_LEVELS.rstrip("\n").encode()) == policy


def test_the_quorum_of_two_levels_for_every_set_of_cosigners() -> None:
    """Two of the first three and one of the last two: all 32 sets."""
    policy = parse_policy(TWO_LEVELS.encode())
    reached = 0
    for chosen in product((False, True), repeat=5):
        keys = [key for key, is_chosen in zip(WITNESSES, chosen, strict=True) if is_chosen]
        expected = sum(chosen[:3]) >= 2 and any(chosen[3:])
        assert is_reached(policy, LOG, *keys) == expected
        reached += expected
    assert reached == 4 * 3


def test_the_error_counts_and_names_nobody() -> None:
    """A witness that cosigned twice counts once, a stranger not at all."""
    policy = parse_policy(TWO_LEVELS.encode())
    stranger = parse_vkey(WITNESS_VKEY)
    with pytest.raises(QuorumError) as caught:
        check_quorum(policy, signed_by(LOG, stranger, WITNESSES[0], WITNESSES[0]))
    assert (caught.value.cosigned, caught.value.witnesses) == (1, 5)
    assert str(caught.value) == "1 of 5 witnesses cosigned, which is not the policy's quorum"


def test_the_log_does_not_count_as_a_witness_of_the_same_key() -> None:
    """A signature of the other kind is not a cosignature, whatever its key."""
    witness = WITNESSES[0]
    policy = parse_policy(f"witness W {V1}\nquorum W\n".encode())
    assert is_reached(policy, witness)
    assert not is_reached(policy, VerifierKey(witness.name, KeyKind.ED25519, witness.public))
    assert not is_reached(policy, VerifierKey("other.example", witness.kind, witness.public))


@given(st.integers(1, 5), st.sets(st.integers(0, 4)))
def test_a_threshold_counts_members(threshold: int, chosen: set[int]) -> None:
    """k of 5, with its two words."""
    head = "".join(f"witness W{at} {format_vkey(key)}\n" for at, key in enumerate(WITNESSES))
    names = {threshold: [str(threshold)]}
    names.setdefault(1, []).append("any")
    names.setdefault(5, []).append("all")
    for count, spellings in names.items():
        for spelling in spellings:
            policy = parse_policy(f"{head}group G {spelling} W0 W1 W2 W3 W4\nquorum G\n".encode())
            assert is_reached(policy, *(WITNESSES[at] for at in chosen)) == (len(chosen) >= count)


def test_no_quorum_asks_for_nothing() -> None:
    """And a pinned key is a policy without one."""
    policy = parse_policy(f"log {LOG_VKEY}\nquorum none\n".encode())
    assert policy == policy_of_key(LOG)
    assert is_reached(policy)
    assert parse_policy(b"quorum none") == Policy(())
    with pytest.raises(TrustInputError):
        policy_of_key(WITNESSES[0])


def test_names_are_octets() -> None:
    """What is not UTF-8 is a name too; a Kelvin sign is not the letter K."""
    data = b"witness \xff %b\nwitness K %b\nwitness \xe2\x84\xaa %b\ngroup \xfe any \xff\nquorum \xfe\n" % (
        V1.encode(),
        V2.encode(),
        V3.encode(),
    )
    policy = parse_policy(data)
    assert (is_reached(policy, WITNESSES[0]), is_reached(policy, WITNESSES[1], WITNESSES[2])) == (True, False)
    with pytest.raises(TrustInputError):
        parse_policy(data.replace(b"quorum \xfe", b"quorum \xff\xfe"))


ONE_KEY_TWICE = format_vkey(VerifierKey("renamed.example", KeyKind.COSIGNATURE, WITNESSES[0].public))
OWN_WITNESS = format_vkey(VerifierKey("renamed.example", KeyKind.COSIGNATURE, LOG.public))
W = f"witness A {V1}\nwitness B {V2}\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", None),
        (f"log {LOG_VKEY}\n", None),
        ("quorum none\nquorum none\n", 2),
        ("quorum\n", 1),
        ("quorum A\n" + W, 1),
        ("quorum none none\n", 1),
        ("Quorum none\n", 1),
        ("log\nquorum none\n", 1),
        (f"log {LOG_VKEY} url more\nquorum none\n", 1),
        (f"log {V1}\nquorum none\n", 1),
        (f"log {LOG_VKEY[:-1]}\nquorum none\n", 1),
        (f"log {LOG_VKEY}\nlog {LOG_VKEY}\nquorum none\n", 2),
        (f"log {LOG_VKEY}\nwitness A {OWN_WITNESS}\nquorum A\n", 2),
        (f"witness A {LOG_VKEY}\nquorum A\n", 1),
        (f"witness {V1}\nquorum A\n", 1),
        (f"witness A {V1} url more\nquorum A\n", 1),
        (f"witness none {V1}\nquorum none\n", 1),
        (f"witness A {V1}\nwitness A {V2}\nquorum A\n", 2),
        (f"witness A {V1}\nwitness B {ONE_KEY_TWICE}\nquorum A\n", 2),
        (W + "group A any B\nquorum A\n", 3),
        (W + "group none any B\nquorum none\n", 3),
        (W + "group G any\nquorum G\n", 3),
        (W + "group G\nquorum G\n", 3),
        (W + "group G any C\nquorum G\n", 3),
        (W + "group G any none\nquorum G\n", 3),
        (W + "group G any G\nquorum G\n", 3),
        (W + "group G any A A\nquorum G\n", 3),
        (W + "group G any A\ngroup H any A B\nquorum H\n", 4),
        *(
            (W + f"group G {count} A B\nquorum G\n", 3)
            for count in ("0", "3", "-1", "01", "+1", "1.0", "２", "ANY", "9" * 9)
        ),
        (W + "group G any A B\nquorum G\rgarbage\n", 4),
        (W + "quorum A\x00\n", 3),
        (W + "quorum A\x7f\n", 3),
        (W + "quorum\u00a0A\n", 3),
        (W.replace("\n", "\r\n") + "quorum A\n", 1),
    ],
)
def test_other_texts_are_no_policies(text: str, line: int | None) -> None:
    """Each refused at its line, with nothing of it quoted."""
    with pytest.raises(TrustInputError) as caught:
        parse_policy(text.encode())
    assert caught.value.line == line
    assert "example" not in str(caught.value)


def test_a_policy_has_a_limit() -> None:
    """Just inside and just outside."""
    text = b"quorum none\n#"
    assert parse_policy(text + b"x" * (POLICY_LIMIT_BYTES - len(text))) == Policy(())
    with pytest.raises(TrustInputError):
        parse_policy(text + b"x" * (POLICY_LIMIT_BYTES - len(text) + 1))
