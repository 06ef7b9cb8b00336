"""The threat matrix: every attack with who finds it, beside each its lawful twin.

Numbers are those of the matrix: A1 damage, A2 edits, A3 a suffix hashed again, A4 a cut tail, A5 an older backup, A6 a deleted tenant,
A7 the operator with the key, A8 two views, A9 back-dating, A10 a dropped head as retention, A11 an edit as erasure, A12 a cherry-picked
export, A13 an event never sent, A14 a stolen key, A15 an entry of another tenant.
"""

from collections.abc import Callable
from functools import partial

from audit_service.core.entry import GROUPS
from audit_service.drill import damage, false_forgetting, keyed, rewriting, twins
from audit_service.drill.bundles import bundle_cases
from audit_service.drill.case import (
    HOLE,
    INCOMPLETE,
    NO_ARCHIVE,
    NO_LOG,
    NOT_THERE,
    REFUSED,
    Case,
    Kinds,
    Observer,
    found_by_chain,
    found_outside,
    kinds,
    lawful,
    not_found,
)
from audit_service.drill.scratch import EARLY_SIZES, Scratch

_HEADER = {
    "hash": ("header_mismatch",),
    "prev_hash": ("header_mismatch", "link_broken"),
    "body_hash": ("header_mismatch", "body_mismatch"),
    "kind": ("header_mismatch",),
    "body": ("body_mismatch",),
}
_COLUMNS = {
    "the time": "occurred_at = occurred_at + interval '1 microsecond'",
    "a name": "actor_name = actor_name || ' '",
    "the address": "ip = '198.51.100.1'",
    "a list": "paths = paths || '{/x}'::text[]",
    "a number": "source_seq = source_seq + 1",
    "the search text": "search = search || ' '",
    "nothing left of one": "server_id = NULL",
}
_HEAD = {
    "size": ("size = size + 1, frontier = frontier || sha256('x')", "truncated"),
    "last hash": ("last_hash = sha256(last_hash)", "head_mismatch"),
    "frontier": ("frontier = sha256(frontier) || substr(frontier, 33)", "root_mismatch"),
    "time": ("last_recorded_at = last_recorded_at + interval '1 microsecond'", "head_mismatch"),
    "epoch": ("epoch = 2", "head_mismatch"),
    "service name": ("service_name = 'elsewhere.invalid'", "header_mismatch"),
    "service name, with a newline in it": ("service_name = service_name || E'\\nx'", "header_mismatch"),
}
# Who verifies a log, all of them.
_NOBODY: tuple[Observer, ...] = ("chain", "checkpoint", "elsewhere", "bundle", "signer")
_CUTS: dict[str, Callable[[Scratch], int]] = {
    "one below the last checkpoint": lambda scratch: scratch.signed - 1,
    "to an older checkpoint": lambda _: EARLY_SIZES[1],
    "to one entry": lambda _: 1,
    "to nothing": lambda _: 0,
}


def cases() -> list[Case]:
    """All of them, in the order of the matrix."""
    return [
        *_damage(),
        *_edits(),
        *_rewriting(),
        *_false_forgetting(),
        *bundle_cases(),
        *_beside(),
        *_keyed(),
        *_twins(),
    ]


def _damage() -> list[Case]:
    flips = [
        found_by_chain(f"one bit of {column}", "A1", partial(damage.flip_bit, column=column), *found)
        for column, found in _HEADER.items()
    ]
    flips += [
        found_by_chain(
            f"one bit of the disclosure {group}",
            "A1",
            partial(damage.flip_bit, column=f"d_{group}"),
            "disclosure_mismatch",
        )
        for group in GROUPS
    ]
    fresh = partial(damage.flip_bit, column="body", fresh=True)
    return [
        *flips,
        found_by_chain("one bit not yet signed", "A1", fresh, "body_mismatch", signer=kinds(REFUSED)),
        found_by_chain(
            "a time a microsecond later",
            "A1",
            partial(damage.edit_column, assignment="recorded_at = recorded_at + interval '1 microsecond'"),
            "header_mismatch",
        ),
        found_by_chain("an epoch", "A1", partial(damage.edit_column, assignment="epoch = 2"), "header_mismatch"),
        found_by_chain("a migration that tidies names", "A1", damage.migrate_badly, "projection_mismatch"),
        found_by_chain("a copy with times in milliseconds", "A1", damage.truncate_times, "header_mismatch"),
    ]


def _edits() -> list[Case]:
    columns = [
        found_by_chain(
            f"a query column: {name}", "A2", partial(damage.edit_column, assignment=assignment), "projection_mismatch"
        )
        for name, assignment in _COLUMNS.items()
    ]
    heads = [
        found_by_chain(f"the head row's {name}", "A2", partial(damage.edit_head, assignment=assignment), found)
        for name, (assignment, found) in _HEAD.items()
    ]
    return [
        *columns,
        *heads,
        found_by_chain("a disclosure replaced under its salt", "A2", damage.edit_disclosure, "disclosure_mismatch"),
        found_by_chain("a disclosure and its commitment", "A2", damage.edit_body, "body_mismatch"),
        found_by_chain("a receipt", "A2", damage.edit_receipt, "projection_mismatch"),
        found_by_chain("a row deleted", "A2", damage.delete_row, "gap"),
        found_by_chain("a row inserted, the rest moved up", "A2", damage.insert_row, "header_mismatch"),
        found_by_chain("a row appended past the head", "A2", damage.append_row, "head_mismatch"),
        found_by_chain("two rows swapped", "A2", damage.swap_rows, "header_mismatch"),
        found_by_chain("a row twice", "A2", damage.duplicate_row, "duplicate"),
        found_by_chain("a row of another tenant", "A15", damage.copy_other_tenants_row, "header_mismatch"),
    ]


def _rewriting() -> list[Case]:
    r = rewriting
    cuts = [
        found_outside(f"the tail cut {name}, the head reset", "A4", partial(r.cut_tail, size_of=size_of), "truncated")
        for name, size_of in _CUTS.items()
    ]
    at_checkpoint: Callable[[Scratch], int] = lambda scratch: scratch.signed  # noqa: E731 - beside those of _CUTS
    fresh = partial(r.back_date, fresh=True, to_before=True)
    old = partial(r.back_date, fresh=False, to_before=True)
    return [
        found_outside("a signed entry edited, the rest hashed again", "A3", r.rehash_suffix, "root_mismatch"),
        found_outside("the whole log hashed again", "A3", r.rehash_all, "root_mismatch"),
        not_found(
            "an entry behind the last checkpoint edited, hashed again",
            "A3",
            r.rehash_window,
            signer=kinds(),
            receipt=kinds(NOT_THERE),
        ),
        Case(
            "an entry of a version nobody knows, hashed again",
            "A3",
            r.unknown_version,
            {"chain": kinds(INCOMPLETE), "checkpoint": kinds("root_mismatch")},
        ),
        *cuts,
        not_found(
            "the tail cut down to the last checkpoint",
            "A4",
            partial(r.cut_tail, size_of=at_checkpoint),
            signer=kinds(),
            receipt=kinds(NOT_THERE),
        ),
        found_by_chain("the tail cut, the head left", "A4", r.cut_tail_only, "truncated", signer=kinds(REFUSED)),
        found_by_chain("the tail cut, its receipts left", "A4", r.cut_tail_keep_receipts, "projection_mismatch"),
        found_outside("an older backup restored", "A5", r.restore_backup, "truncated"),
        found_outside("an older backup restored and gone on with", "A5", r.restore_and_go_on, "root_mismatch"),
        Case("a whole tenant deleted", "A6", r.delete_tenant, {"chain": kinds(), "checkpoint": kinds(NO_LOG)}),
        found_by_chain(
            "an entry a day older, hashed again",
            "A9",
            partial(r.back_date, fresh=False, to_before=False),
            "time_backwards",
        ),
        found_outside("a signed entry just as old as the one before, hashed again", "A9", old, "root_mismatch"),
        not_found("the same of an entry behind the last checkpoint", "A9", fresh, receipt=kinds(NOT_THERE)),
    ]


def _false_forgetting() -> list[Case]:
    f = false_forgetting
    unrecorded = kinds("unrecorded_prune")
    return [
        found_by_chain("the head deleted", "A10", f.delete_head, "gap"),
        found_by_chain("the head deleted, the head row says pruned", "A10", f.cut_head, "unrecorded_prune"),
        Case(
            "a `prune` entry with a checkpoint by another key",
            "A10",
            f.cut_head_on_record,
            {"chain": kinds(INCOMPLETE), "checkpoint": unrecorded},
        ),
        found_by_chain("a `prune` entry for edited entries", "A10", f.cut_changed_head, "unrecorded_prune"),
        found_by_chain(
            "a `prune` entry with another log's checkpoint", "A10", f.cut_head_of_another, "unrecorded_prune"
        ),
        # The same bytes as a lawful prune's; only who keeps the archives can tell.
        Case(
            "a `prune` entry nobody ordered, with the genuine checkpoint",
            "A10",
            f.cut_head_as_pruning,
            {who: kinds() for who in _NOBODY} | {"chain": kinds(INCOMPLETE), "archive": kinds(NO_ARCHIVE)},
        ),
        found_by_chain("a disclosure gone, no `erase` entry", "A11", f.null_disclosure, "unrecorded_erasure"),
        found_by_chain("a body gone, no `drop` entry", "A11", f.null_body, "unrecorded_erasure"),
        found_by_chain("an `erase` entry for another commitment", "A11", f.erase_for_others, "unrecorded_erasure"),
        found_by_chain("a value replaced under an `erase` entry", "A11", f.edit_as_erasure, "disclosure_mismatch"),
        found_by_chain("a `drop` entry for other entries", "A11", f.drop_for_others, "unrecorded_erasure"),
        Case("a `drop` entry nobody ordered", "A11", f.drop_unasked, {who: kinds() for who in _NOBODY}),
    ]


def _beside() -> list[Case]:
    gap, whole = (partial(damage.number_events, numbers=numbers) for numbers in ((1, 2, 4, 5), (1, 2, 3, 4)))
    return [
        not_found("an event that is numbered and never sent", "A13", gap, sources=kinds(HOLE)),
        Case("all numbered events sent", "A13", whole, {"chain": kinds(), "sources": kinds()}, lawful=True),
        not_found("a damaged tile", "A1", damage.damage_tile, bundle=kinds(REFUSED)),
        not_found("stored checkpoints deleted", "A2", damage.delete_checkpoints, bundle=kinds(REFUSED), signer=kinds()),
        not_found("stored checkpoints edited", "A2", damage.edit_checkpoint, bundle=kinds(REFUSED)),
    ]


def _keyed() -> list[Case]:
    k = keyed
    only_elsewhere: dict[Observer, Kinds] = {
        "chain": kinds(),
        "checkpoint": kinds(),
        "elsewhere": kinds("root_mismatch"),
        "signer": kinds(),
    }
    nobody_signed: dict[Observer, Kinds] = {
        "chain": kinds(),
        "checkpoint": kinds(INCOMPLETE),
        "elsewhere": kinds("root_mismatch"),
    }
    return [
        Case("the operator rewrites the log and signs anew", "A7", k.rewrite_and_sign, only_elsewhere),
        Case("two customers are shown two logs", "A8", k.show_two_views, only_elsewhere),
        Case(
            "a checkpoint forged with a stolen key",
            "A14",
            k.forge_with_stolen_key,
            only_elsewhere | {"signer": kinds(REFUSED)},
        ),
        Case(
            "a checkpoint by a key after it was revoked",
            "A14",
            k.forge_with_revoked_key,
            {"checkpoint": kinds(INCOMPLETE)},
        ),
        Case(
            "a checkpoint by a succeeded key alone, after its time",
            "A14",
            k.forge_with_retired_key,
            {"checkpoint": kinds(INCOMPLETE), "bundle": kinds("checkpoint")},
        ),
        Case("a checkpoint by a strange key", "A14", k.sign_with_strange_key, nobody_signed),
        Case("a checkpoint edited under its signature", "A14", k.edit_note, nobody_signed),
        Case("a checkpoint of another log", "A15", k.show_note_of_another_log, {"checkpoint": kinds(INCOMPLETE)}),
        Case(
            "the key file replaced",
            "A14",
            k.swap_key,
            {"chain": kinds(), "checkpoint": kinds(), "signer": kinds(REFUSED)},
        ),
    ]


def _twins() -> list[Case]:
    t = twins
    without_key = kinds(INCOMPLETE)
    return [
        lawful("nothing done", "", t.do_nothing, elsewhere=kinds()),
        lawful("every row and index written anew", "A1", t.rewrite_pages, elsewhere=kinds()),
        lawful("an event sent twice", "A2", t.send_again, elsewhere=kinds()),
        lawful("events appended behind a checkpoint", "A3", t.go_on, elsewhere=kinds(), receipt=kinds()),
        lawful("an append rolled back", "A4", t.roll_back, elsewhere=kinds(), receipt=kinds()),
        lawful("a tenant pruned and cleared, its log kept", "A6", t.give_tenant_up, chain=without_key, archive=kinds()),
        lawful("the signer moved to another folder", "A7", t.move_signer, elsewhere=kinds()),
        lawful("two customers with checkpoints of two sizes", "A8", t.show_two_sizes, elsewhere=kinds()),
        lawful("events of long ago, sent late", "A9", t.send_late, elsewhere=kinds()),
        lawful("one event sent to two tenants", "A15", t.send_to_both, elsewhere=kinds()),
        lawful("a log cleared", "A11", t.clear, elsewhere=kinds()),
        lawful("bodies dropped around a legal hold", "A11", t.clear_around_hold, elsewhere=kinds()),
        lawful("events erased", "A11", t.erase_events, elsewhere=kinds()),
        lawful("a person erased", "A11", t.erase_person, elsewhere=kinds()),
        # Who has no key cannot tell whose checkpoint the prune rests on, and is told so.
        lawful("a log pruned", "A10", t.prune_head, chain=without_key, archive=kinds()),
        lawful("a key succeeded by another", "A14", t.rotate_key, elsewhere=kinds()),
        lawful("a key revoked, and what it signed before", "A14", t.revoke_key),
        lawful("a backup restored and resumed", "A5", t.restore_and_resume, elsewhere=kinds("truncated")),
        lawful("a backup restored twice", "A5", t.resume_again, elsewhere=kinds("root_mismatch", "truncated")),
    ]
