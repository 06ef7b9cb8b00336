"""Bundles that hold, and bundles that do not, each with the checks that must say so. Both offline verifiers face them all.

A forger is assumed to be able: after his change he makes the manifest fit again (`remade`), so that the check he is up
against stands alone. Where a log was *sealed* wrong, everything else about it is right, its signature too.
"""

import random
from collections.abc import Iterator

from audit_service.core.vkey import Signer, format_vkey
from tests.support.bundles import (
    MadeLog,
    pack,
    remade,
)
from tests.support.evidence_base import OTHER_SEED, Case, epoch_one_log, full_log, public_text
from tests.support.evidence_checkpoints import checkpoint_cases
from tests.support.evidence_controls import control_cases, forgotten_cases
from tests.support.evidence_forged import claim_cases, filtered_cases, line_cases, proof_cases, spelling_cases
from tests.support.evidence_keys import bad_key_cases, good_key_cases
from tests.support.evidence_sealed import canonical_bodies, canonical_values, sealed, sealed_value, sealed_wrong_cases
from tests.support.evidence_withheld import withheld_cases
from tests.support.evidence_zips import zip_cases


def good_cases() -> Iterator[Case]:
    """Bundles that hold."""
    log, keys = full_log(), (full_log().vkey,)
    ranges: list[tuple[int, int, int | None]] = [
        (0, 28, None), (5, 20, None), (7, 8, None), (6, 7, 7), (4, 4, None), (0, 0, 0), (28, 28, None), (21, 28, None), (3, 24, 25),
    ]  # fmt: skip
    for start, stop, size in ranges:
        epoch1 = size is not None and size < 23
        made = epoch_one_log() if epoch1 else log
        members = made.bundle(start, stop, size=size)
        yield Case(f"range {start} to {stop} of {size}", pack(members), (made.vkey,))
    for name, chosen in (("some", lambda made: made.seq % 3 == 0), ("none", lambda _: False), ("all", lambda _: True)):
        yield Case(f"filtered, {name}", pack(log.bundle(2, 27, chosen=chosen)), keys)
    members = log.bundle()
    for deflated in (False, True):
        for streamed in (False, True):
            yield Case(
                f"deflated {deflated}, streamed {streamed}", pack(members, deflated=deflated, streamed=streamed), keys
            )
    yield Case("members in another order", pack(dict(reversed(members.items()))), keys)
    yield Case("two keys pinned", pack(members), (*keys, format_vkey(Signer.from_seed("x/y", OTHER_SEED).verifier())))
    both = [log.signer, Signer.from_seed(log.origin, OTHER_SEED)]
    yield Case("signed by a second key, too", pack(log.bundle(signers=both)), keys)
    yield Case("pruned before", pack(log.bundle(5, 28, pruned_before=5)), keys)
    revoking = MadeLog(signing_seed=OTHER_SEED)
    revoking.event()
    revoking.control("signer", {"event": "revoked", "old": public_text(MadeLog().signer), "from_size": 0})
    yield Case("another key was revoked", pack(revoking.bundle()), (revoking.vkey,))
    for number, body in enumerate(canonical_bodies()):
        yield Case(f"canonical body {number}", *sealed(body))
    for number, value in enumerate(canonical_values()):
        yield Case(f"canonical value {number}", *sealed_value(value))
    yield from good_key_cases()


def bad_cases() -> Iterator[Case]:
    """Bundles that do not hold, or of which nothing can be said."""
    yield from line_cases()
    yield from claim_cases()
    yield from proof_cases()
    yield from checkpoint_cases()
    yield from bad_key_cases()
    yield from sealed_wrong_cases()
    yield from forgotten_cases()
    yield from withheld_cases()
    yield from control_cases()
    yield from filtered_cases()
    yield from spelling_cases()
    yield from zip_cases()


def random_cases(count: int, seed: int) -> Iterator[Case]:
    """Mutants of the full bundle and of a filtered one: bits, bytes, lines, JSON values; half with a manifest made to fit.

    What must be found is not known for each, so `exit` is -1: not 0, unless the members are what they were.
    """
    chance = random.Random(seed)  # noqa: S311 - the same mutants for the same seed
    log = full_log()
    sources = [log.bundle(), log.bundle(5, 21), log.bundle(chosen=lambda made: made.seq % 2 == 0)]
    for number in range(count):
        members = chance.choice(sources)
        name = chance.choice(list(members))
        # That a control entry which explains nothing was left out cannot be seen: they are proven one by one.
        changed = _mutated(members[name], chance, whole_lines=name != "controls.ndjson")
        if changed == members[name]:
            continue
        mutant = members | {name: changed}
        if name != "manifest.json" and chance.random() < 0.7:
            mutant = remade(mutant)
        data = pack(mutant, deflated=chance.random() < 0.3, streamed=chance.random() < 0.3)
        yield Case(f"mutant {number} of {name}", data, (log.vkey,), exit=-1)


def _mutated(data: bytes, chance: random.Random, *, whole_lines: bool) -> bytes:
    at = chance.randrange(len(data)) if data else 0
    lines, from_at = data.splitlines(keepends=True), chance.randrange(len(data) or 1)
    line = chance.randrange(len(lines) or 1)
    ways = [
        lambda: data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :],
        lambda: data[:at] + data[at + chance.randrange(1, 9) :],
        lambda: data[:at] + chance.randbytes(chance.randrange(1, 5)) + data[at:],
        lambda: data[:at] + bytes([chance.choice(b'0123456789abcdefAZ"{}[],:\\/ \n')]) + data[at + 1 :],
        lambda: data[:at] + data[from_at : from_at + chance.randrange(1, 40)] + data[at:],
        lambda: b"".join(chance.sample(lines, len(lines))),
    ]
    if whole_lines:
        ways.append(lambda: b"".join(lines[:line] + lines[line + 1 :]))
    return chance.choice(ways)()
