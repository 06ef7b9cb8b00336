-- Sight (decision 0018): what of a log the reader of a transaction may see, bound with the log by store.engine.bound. Runs as audit_owner.

-- The second wall between readers of one log: all that a person reads comes through this view. Not a security barrier, as bound_entry.
-- `audit.sight` says which entries: `every`; `panels`, all but the service's own; `listed`, those that all the lists admit, each an array
-- of texts or `*`. Unset, empty or anything else: none. An entry whose content was dropped is nobody's: `listed` shows no such entry.
-- The settings are read in sub-selects, once for each statement and not for each row. All of it is one CASE that is true or null: that a value
-- is not null the planner takes for almost certain, and plans as without it; each comparison with a setting it would take for a two-hundredth.
-- What narrows down the sight of a statement's reader, the statement says as well, in words that the planner knows.
CREATE VIEW audit.seen_entry AS
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
            THEN true
        END IS NOT NULL;

-- What the index has counted cannot be checked entry by entry: none of it for who does not see every entry. `own.` and a field: how many of
-- the service's own entries have a value, which the field by itself leaves out.
CREATE OR REPLACE VIEW audit.bound_tally AS
    SELECT * FROM audit.tally
    WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint
        AND CASE
            WHEN (SELECT current_setting('audit.sight', true) = 'every') THEN true
            WHEN (SELECT current_setting('audit.sight', true) = 'panels') AND NOT starts_with(field, 'own.') THEN true
        END IS NOT NULL;

-- What some postings add to the tallies: of each field in `p_tallied`, without what its field `own.` has of the same value.
CREATE FUNCTION audit.tally_changes(p_field text[], p_value text[], p_count integer[], p_tallied text[])
RETURNS TABLE (field text, value text, events bigint)
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $changes$
    SELECT c.field, c.value, sum(c.events)::bigint FROM (
        SELECT x.field COLLATE "C" AS field, x.value COLLATE "C" AS value, x.events FROM unnest(p_field, p_value, p_count) AS x(field, value, events)
        UNION ALL
        SELECT substr(x.field, 5) COLLATE "C", x.value COLLATE "C", -x.events FROM unnest(p_field, p_value, p_count) AS x(field, value, events)
        WHERE starts_with(x.field, 'own.')
    ) AS c
    WHERE c.field = ANY (p_tallied) GROUP BY c.field, c.value HAVING sum(c.events) <> 0
$changes$;
REVOKE ALL ON FUNCTION audit.tally_changes FROM PUBLIC;

-- As before, with the tallies counted so.
CREATE OR REPLACE FUNCTION audit.put_segment(
    p_log_id bigint, p_number integer, p_first_at timestamptz, p_last_at timestamptz, p_events integer,
    p_field text[], p_value text[], p_count integer[], p_positions bytea[], p_tallied text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $put$
BEGIN
    UPDATE audit.segment AS s SET first_at = p_first_at, last_at = p_last_at, events = p_events
        WHERE s.log_id = p_log_id AND s.number = p_number;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such segment' USING ERRCODE = 'AU010';
    END IF;
    WITH gone AS (
        DELETE FROM audit.posting AS p WHERE p.log_id = p_log_id AND p.number = p_number RETURNING p.field, p.value, p.events
    ), change AS (
        SELECT array_agg(c.field) AS field, array_agg(c.value) AS value, array_agg(c.events) AS events FROM (
            SELECT g.field, g.value, -g.events AS events FROM gone AS g
            UNION ALL
            SELECT x.field, x.value, x.events FROM unnest(p_field, p_value, p_count) AS x(field, value, events)
        ) AS c
    )
    INSERT INTO audit.tally AS t (log_id, field, value, events)
        SELECT p_log_id, n.field, n.value, n.events
        FROM change AS c CROSS JOIN LATERAL audit.tally_changes(c.field, c.value, c.events, p_tallied) AS n
        ORDER BY n.field, n.value
        ON CONFLICT (log_id, field, value) DO UPDATE SET events = t.events + EXCLUDED.events;
    DELETE FROM audit.tally AS t WHERE t.log_id = p_log_id AND t.events <= 0;
    INSERT INTO audit.posting (log_id, number, field, value, events, positions)
        SELECT p_log_id, p_number, x.field, x.value, x.events, x.positions
        FROM unnest(p_field, p_value, p_count, p_positions) AS x(field, value, events, positions);
END
$put$;

CREATE OR REPLACE FUNCTION audit.add_segment(
    p_log_id bigint, p_number integer, p_generation bigint, p_first_at timestamptz, p_last_at timestamptz, p_events integer,
    p_field text[], p_value text[], p_count integer[], p_positions bytea[], p_tallied text[]
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $add$
DECLARE
    v_generation bigint;
    v_next integer;
BEGIN
    IF p_log_id IS DISTINCT FROM NULLIF(current_setting('audit.log_id', true), '')::bigint THEN
        RAISE EXCEPTION 'only the bound log is indexed' USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO audit.forgetting (log_id) VALUES (p_log_id) ON CONFLICT DO NOTHING;
    -- Indexers take turns, and none is between another's reading and its adding while something is forgotten.
    SELECT f.generation INTO v_generation FROM audit.forgetting AS f WHERE f.log_id = p_log_id FOR UPDATE;
    IF v_generation <> p_generation THEN
        RETURN false;
    END IF;
    SELECT COALESCE(max(s.number) + 1, 0) INTO v_next FROM audit.segment AS s WHERE s.log_id = p_log_id;
    IF p_number < v_next THEN
        RETURN false;
    END IF;
    IF p_number > v_next THEN
        RAISE EXCEPTION 'segments are added in order' USING ERRCODE = 'AU012';
    END IF;
    INSERT INTO audit.segment AS s (log_id, number, first_at, last_at, events)
        VALUES (p_log_id, p_number, p_first_at, p_last_at, p_events);
    INSERT INTO audit.posting (log_id, number, field, value, events, positions)
        SELECT p_log_id, p_number, x.field, x.value, x.events, x.positions
        FROM unnest(p_field, p_value, p_count, p_positions) AS x(field, value, events, positions);
    INSERT INTO audit.tally AS t (log_id, field, value, events)
        SELECT p_log_id, n.field, n.value, n.events FROM audit.tally_changes(p_field, p_value, p_count, p_tallied) AS n
        ORDER BY n.field, n.value
        ON CONFLICT (log_id, field, value) DO UPDATE SET events = t.events + EXCLUDED.events;
    RETURN true;
END
$add$;

-- The segments that are there already: what their control entries have (no other entry was the service's own so far). Nobody looks up where
-- these are: their bitmaps stay empty.
INSERT INTO audit.posting (log_id, number, field, value, events, positions)
    SELECT e.log_id, s.number, 'own.' || v.field, left(v.value, 256), count(*), '\x3a30000000000000'
    FROM audit.entry AS e
    JOIN audit.segment AS s ON s.log_id = e.log_id AND s.number = e.seq / 16384
    CROSS JOIN LATERAL (VALUES
        ('quarter', to_char(date_bin('15 minutes', e.occurred_at, '2000-01-01 00:00:00+00') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI')),
        ('actor_id', e.actor_id), ('actor_type', e.actor_type), ('role', e.actor_role), ('action', e.action), ('verb', e.verb),
        ('category', e.category), ('target_type', e.target_type), ('server_id', COALESCE(e.server_id, '')), ('outcome', e.outcome)
    ) AS v(field, value)
    WHERE e.kind <> 'event' AND starts_with(e.action, 'audit.') AND e.occurred_at IS NOT NULL AND v.value IS NOT NULL
    GROUP BY e.log_id, s.number, v.field, left(v.value, 256);
WITH own AS (
    SELECT p.log_id, p.field, p.value, sum(p.events) AS events FROM audit.posting AS p
    WHERE starts_with(p.field, 'own.') AND p.field <> 'own.quarter' GROUP BY p.log_id, p.field, p.value
), apart AS (
    INSERT INTO audit.tally (log_id, field, value, events) SELECT o.log_id, o.field, o.value, o.events FROM own AS o
)
UPDATE audit.tally AS t SET events = t.events - o.events FROM own AS o
    WHERE t.log_id = o.log_id AND t.field = substr(o.field, 5) AND t.value = o.value;
DELETE FROM audit.tally AS t WHERE t.events <= 0;

REVOKE ALL ON audit.seen_entry FROM PUBLIC;
GRANT SELECT ON audit.seen_entry TO audit_serving, audit_retention;
