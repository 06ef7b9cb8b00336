-- Own actions are of an actor's type and id (decision 0018): `audit.actor_types`, a list as the others. Unset, `listed` shows nothing.
-- `bound_tally` stays: it shows nothing to who does not see every entry. Runs as audit_owner.
CREATE OR REPLACE VIEW audit.seen_entry AS
    SELECT * FROM audit.entry
    WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint
        AND CASE
            WHEN (SELECT current_setting('audit.sight', true) = 'every') THEN true
            WHEN (SELECT current_setting('audit.sight', true) = 'panels') AND starts_with(action, 'audit.') IS NOT TRUE THEN true
            WHEN (SELECT current_setting('audit.sight', true) = 'listed') AND action IS NOT NULL
                AND ((SELECT current_setting('audit.own_entries', true) = 'on') OR NOT starts_with(action, 'audit.'))
                AND CASE WHEN server_id IS NULL THEN (SELECT current_setting('audit.global_events', true) = 'on')
                    ELSE (SELECT current_setting('audit.servers', true) = '*') OR server_id = ANY (
                        SELECT unnest(NULLIF(NULLIF(current_setting('audit.servers', true), ''), '*')::text[])) END
                AND ((SELECT current_setting('audit.categories', true) = '*') OR category = ANY (
                    SELECT unnest(NULLIF(NULLIF(current_setting('audit.categories', true), ''), '*')::text[])))
                AND ((SELECT current_setting('audit.actors', true) = '*') OR actor_id = ANY (
                    SELECT unnest(NULLIF(NULLIF(current_setting('audit.actors', true), ''), '*')::text[])))
                AND ((SELECT current_setting('audit.actor_types', true) = '*') OR actor_type = ANY (
                    SELECT unnest(NULLIF(NULLIF(current_setting('audit.actor_types', true), ''), '*')::text[])))
            THEN true
        END IS NOT NULL;
