r"""Which events begin and end the life of their target, judged by what the log holds of them.

The log does not keep the rows of an event, only their differences, so a created row and a row that gained a column look alike:
only `add`s. What tells them apart is the verb, and the verb alone is not enough, because panels log `server:backup.create` and
`server:file.delete` *on a server*: a verb of the last word, about something else than the target. So an event speaks of the life of
its target when its verb is CREATE, RESTORE or DELETE *and* its action names the target or nothing:

>>> speaks_of_target("server.deleted", "server"), speaks_of_target("DELETE", "server")
(True, True)
>>> speaks_of_target("server:file.delete", "server"), speaks_of_target("license.deleted", "App\\Models\\LicenseKey")
(False, True)

What an action names is the words before its verb; one of them must be one of the type's words, plural or not.
"""

import re
from collections.abc import Sequence

from audit_service.core.diff import Change
from audit_service.core.verb import derive_verb

__all__ = ["begins_row", "brings_whole_row", "ends_row", "speaks_of_target", "takes_whole_row"]

_PARTS = re.compile(r"[.:/]")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W_A-Z]+")


def begins_row(verb: str, action: str, target_type: str) -> bool:
    """Whether the event says that its target exists from now on, or again."""
    return verb in {"CREATE", "RESTORE"} and speaks_of_target(action, target_type)


def ends_row(verb: str, action: str, target_type: str, changes: Sequence[Change] | None) -> bool:
    """Whether the event deletes its target. `changes` None: they cannot be read. Empty: the sender brought no row.

    An event that also changed something, or removed only parts of columns, left a row behind.
    """
    return verb == "DELETE" and speaks_of_target(action, target_type) and (not changes or takes_whole_row(changes))


def brings_whole_row(changes: Sequence[Change]) -> bool:
    """Whether the changes may be a whole row that was not there before: members of the row that were added, nothing else."""
    return _all_columns(changes, "add")


def takes_whole_row(changes: Sequence[Change]) -> bool:
    """The mirror image: members of the row that were removed, nothing else."""
    return _all_columns(changes, "remove")


def _all_columns(changes: Sequence[Change], op: str) -> bool:
    # A redacted change whose path was cut at a secret name says `replace`, whatever happened below.
    return bool(changes) and all(
        (change["op"] == op or "redacted" in change) and str(change["path"]).count("/") == 1 for change in changes
    )


def speaks_of_target(action: str, target_type: str) -> bool:
    """Whether the action names its target, or nothing at all."""
    *before, last = _PARTS.split(action)
    named = [word for word in _WORDS.findall(last) if derive_verb(word) == "OTHER"]
    only_verb = not named
    above = _WORDS.findall(before[-1]) if before else []
    # `license.wiped`, sent with a verb of its own: `wiped` is no word we know, so the noun is either of the two.
    words = above if only_verb else [*named, *above]
    return not words or not _singular(words).isdisjoint(_singular(_WORDS.findall(target_type)))


def _singular(words: Sequence[str]) -> set[str]:
    folded = (word.casefold() for word in words)
    return {word[:-3] + "y" if word.endswith("ies") else word.removesuffix("s") for word in folded}
