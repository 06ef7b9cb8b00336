-- Sight (decision 0018): what of a log the reader of a transaction may see, bound with the log by store.engine.bound. Runs as audit_owner.

-- The second wall between readers of one log: all that a person reads comes through this view. Not a security barrier, as bound_entry.
-- `audit.sight` says which entries: `every`; `panels`, all but the service's own; `listed`, those that all the lists admit, each an array
-- of texts or `*`. Unset, empty or anything else: none. An entry whose content was dropped is nobody's: `listed` shows no such entry.
-- The settings are read in sub-selects, once for each statement and not for each row; all of it is one CASE, because the planner takes a
-- half for what a CASE lets through, and a two-hundredth for each comparison with a setting, which would spoil every plan.
CREATE VIEW audit.seen_entry AS
    SELECT * FROM audit.entry
    WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint
        AND CASE
            WHEN (SELECT current_setting('audit.sight', true) = 'every') THEN true
            WHEN (SELECT current_setting('audit.sight', true) = 'panels') THEN starts_with(action, 'audit.') IS NOT TRUE
            WHEN (SELECT current_setting('audit.sight', true) = 'listed') AND action IS NOT NULL
                AND ((SELECT current_setting('audit.own_entries', true) = 'on') OR NOT starts_with(action, 'audit.'))
                AND CASE WHEN server_id IS NULL THEN (SELECT current_setting('audit.global_events', true) = 'on')
                    ELSE (SELECT current_setting('audit.servers', true) = '*') OR server_id = ANY (
                        SELECT unnest(NULLIF(NULLIF(current_setting('audit.servers', true), ''), '*')::text[])) END
                AND ((SELECT current_setting('audit.categories', true) = '*') OR category = ANY (
                    SELECT unnest(NULLIF(NULLIF(current_setting('audit.categories', true), ''), '*')::text[])))
                AND ((SELECT current_setting('audit.actors', true) = '*') OR actor_id = ANY (
                    SELECT unnest(NULLIF(NULLIF(current_setting('audit.actors', true), ''), '*')::text[])))
            THEN true
        END;

-- What the index has counted cannot be checked entry by entry. `own.` and a field: how many of the service's own entries have a value, which
-- the field by itself leaves out.
CREATE OR REPLACE VIEW audit.bound_tally AS
    SELECT * FROM audit.tally
    WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint
        AND CASE
            WHEN (SELECT current_setting('audit.sight', true) = 'every') THEN true
            WHEN (SELECT current_setting('audit.sight', true) = 'panels') THEN NOT starts_with(field, 'own.')
        END;

REVOKE ALL ON audit.seen_entry FROM PUBLIC;
GRANT SELECT ON audit.seen_entry TO audit_serving, audit_retention;
