"""The verb of an event, derived from the last word of its action when the sender gives none.

This is the one table; the README prints it. Words are compared in lower case; the last word of an action is what
follows the last of `. _ - : /`. A word that is not listed is OTHER: `panel.started` reports a state, `server:power.start` asks for one.
"""

import re
from functools import lru_cache
from typing import Literal, get_args

Verb = Literal[
    "CREATE", "READ", "UPDATE", "DELETE", "LOGIN", "LOGOUT", "RESET", "EXECUTE", "RESTORE", "SUSPEND", "RESUME", "TRANSFER", "OTHER"
]  # fmt: skip
VERBS: tuple[Verb, ...] = get_args(Verb)

WORDS: dict[Verb, str] = {
    "CREATE": "create created add added insert inserted new store stored register registered upload uploaded issue issued "
    "generate generated import imported invite invited reply replied open opened order ordered post posted copy copied compress",
    "READ": "read view viewed show list listed visit visited get download downloaded export exported search searched access accessed",
    "UPDATE": "update updated edit edited change changed modify modified set rename renamed move moved write save saved assign "
    "assigned unassign patch enable enabled disable disabled adjust adjusted renew renewed upgrade upgraded downgrade downgraded "
    "activate activated deactivate deactivated approve approved reject rejected credit credited debit debited pay paid refund refunded "
    "close closed label labeled unlabeled pin pinned unpin lock locked unlock unlocked",
    "DELETE": "delete deleted remove removed destroy destroyed purge purged drop dropped revoke revoked detach detached "
    "cancel cancelled canceled terminate terminated clear cleared",
    "LOGIN": "login signin logon authenticate authenticated",
    "LOGOUT": "logout signout logoff",
    "RESET": "reset rotate rotated",
    "EXECUTE": "execute executed run start stop restart reboot kill command console install reinstall trigger triggered send sent "
    "backup sync synced test",
    "RESTORE": "restore restored rollback recover recovered undelete unarchive",
    "SUSPEND": "suspend suspended pause paused block blocked ban banned freeze frozen",
    "RESUME": "resume resumed unsuspend unsuspended unpause unblock unblocked unban unbanned unfreeze",
    "TRANSFER": "transfer transferred migrate migrated",
}
_VERB_OF: dict[str, Verb] = {word: verb for verb, words in WORDS.items() for word in words.split()}
_LAST_WORD = re.compile(r"[A-Za-z0-9]+(?=[^A-Za-z0-9]*$)")


@lru_cache(maxsize=4096)  # a panel has tens of actions
def derive_verb(action: str) -> Verb:
    """The verb for an action: `schedule.updated` → UPDATE, `server:power.start` → EXECUTE, `UPDATE` → UPDATE."""
    word = _LAST_WORD.search(action)
    return "OTHER" if word is None else _VERB_OF.get(word.group().lower(), "OTHER")


@lru_cache(maxsize=4096)
def derive_category(action: str) -> str:
    """The category for an action: what stands before the first `.` or `:`."""
    return re.split(r"[.:]", action, maxsplit=1)[0] or action
