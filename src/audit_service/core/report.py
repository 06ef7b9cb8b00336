"""What a verification answers (DESIGN 3.4)."""

from collections.abc import Sequence
from dataclasses import dataclass

from audit_service.core.checker import Break, Depth
from audit_service.core.pinned import Judged, overall
from audit_service.core.verified import VerifiedPoint


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Where the trust in signatures came from: how many keys the caller had pinned, and how many are the installation's own."""

    pinned: int
    own: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found. `status`: ok, broken, or incomplete (something asked for could not be checked).

    `erased`: disclosures, `dropped`: bodies that are gone and explained by a control entry, in the range that was checked.
    `point`: where a later verification may go on, when everything up to there is right; it stays inside.
    """

    status: str
    origin: str
    from_seq: int
    to_seq: int
    count: int
    depth: Depth
    pruned_before: int | None
    erased: int
    dropped: int
    head: str
    root: str | None
    checkpoints: Sequence[Judged]
    trusted_keys: TrustedKeys
    breaks: list[Break]
    breaks_total: int
    not_checked: list[str]
    point: VerifiedPoint | None = None

    def as_json(self) -> dict[str, object]:
        """The report of DESIGN 3.4."""
        return {
            "status": self.status,
            "origin": self.origin,
            "checked": {"from_seq": self.from_seq, "to_seq": self.to_seq, "count": self.count},
            "depth": self.depth,
            "pruned_before": self.pruned_before,
            "erased": self.erased,
            "dropped": self.dropped,
            "head": self.head,
            "root": self.root,
            "checkpoint": {
                "status": overall(self.checkpoints),
                "detail": self._detail(),
                "checkpoints": [
                    {
                        "origin": one.checkpoint.origin,
                        "size": one.checkpoint.size,
                        "root": one.checkpoint.root.hex(),
                        "status": one.status,
                        "detail": one.detail,
                        "signed_by": one.signed_by,
                    }
                    for one in self.checkpoints
                ],
            },
            "trusted_keys": {"pinned": self.trusted_keys.pinned, "own": self.trusted_keys.own},
            "breaks": [
                {"seq": item.seq, "kind": item.kind, "expected": item.expected, "found": item.found}
                for item in self.breaks
            ],
            "breaks_total": self.breaks_total,
            "not_checked": self.not_checked,
        }

    def _detail(self) -> str | None:
        """Why the checkpoints together have the status they have: that of the first such."""
        status = overall(self.checkpoints)
        return next((one.detail for one in self.checkpoints if one.status == status), None)
