"""A drill: every case of the matrix on an installation of its own, everybody who is asked looks, and a verdict for each.

`as expected`    everybody found what the matrix says, and nobody anything where it says that nothing shows
`slipped through` somebody the matrix counts on did not find it, or named another place: the drill is red
`false alarm`    somebody found something in a lawful act: the drill is red
`more found`     an attack showed to somebody of whom the matrix does not say so: good news, and the matrix is to be corrected
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from audit_service.drill.case import Case, Kinds, Observer
from audit_service.drill.observers import OBSERVERS, Scene, Seen
from audit_service.drill.scratch import Ground, Scratch

Verdict = Literal["as expected", "slipped through", "false alarm", "more found"]
RED: frozenset[Verdict] = frozenset({"slipped through", "false alarm"})
# A `resume` makes epoch 2, one that follows it another, and keys are named as the epoch's origin.
_EPOCHS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case and what everybody found who was asked."""

    case: Case
    seen: Mapping[Observer, Seen]
    verdict: Verdict

    def as_json(self) -> dict[str, object]:
        """For a script."""
        return {
            "attack": self.case.name,
            "threat": self.case.threat,
            "lawful": self.case.lawful,
            "verdict": self.verdict,
            "observers": {
                who: {"expected": sorted(self.case.expected[who]), "found": sorted(seen.found), "seq": seen.seq, "said": seen.said}
                for who, seen in self.seen.items()
            },
        }  # fmt: skip


async def drill(ground: Ground, cases: Sequence[Case]) -> AsyncIterator[Outcome]:
    """The outcome of each case, in their order."""
    for case in cases:
        async with ground.copy() as scratch:
            yield await _outcome(case, scratch)


async def _outcome(case: Case, scratch: Scratch) -> Outcome:
    name = f"{scratch.log.service_name}/t/{scratch.log.log_key}"
    key = scratch.signing.keys().signing[0]
    scene = Scene(scratch, await case.commit(scratch), [key.verifier(f"{name}/{epoch}") for epoch in _EPOCHS])
    seen = {who: await look(scene) for who, look in OBSERVERS.items() if who in case.expected}
    return Outcome(case, seen, _verdict(case, seen, scene.committed.seq))


def _verdict(case: Case, seen: Mapping[Observer, Seen], seq: int | None) -> Verdict:
    if any(not _is_found(case.expected[who], one) for who, one in seen.items()):
        return "slipped through"
    if seq is not None and any(
        seen[who].seq != seq for who in ("chain", "checkpoint") if who in seen and case.expected[who]
    ):
        return "slipped through"
    if any(one.found and not case.expected[who] for who, one in seen.items()):
        return "false alarm" if case.lawful else "more found"
    return "as expected"


def _is_found(expected: Kinds, seen: Seen) -> bool:
    return expected <= seen.found
