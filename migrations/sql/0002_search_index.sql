-- The search index (decision 0007): built behind the log, a segment of 16,384 entries at a time, by whoever runs the indexer.
-- Nothing of it is evidence: it can be dropped and built again from the entries at any time.

-- Filters other than these are answered by the search index now, and cost an append nothing.
DROP INDEX audit.entry_actor;
DROP INDEX audit.entry_action;

-- One row for each segment that is in the index: when its first and last events occurred (null: all were dropped), and how many are listed.
CREATE TABLE audit.segment (
    log_id bigint NOT NULL,
    first_at timestamptz,
    last_at timestamptz,
    number integer NOT NULL,
    events integer NOT NULL,
    CONSTRAINT segment_pkey PRIMARY KEY (log_id, number)
);

-- Which entries of a segment have a term: `positions` is a serialized Roaring bitmap of seq - 16384 * number.
CREATE TABLE audit.posting (
    log_id bigint NOT NULL,
    number integer NOT NULL,
    events integer NOT NULL,
    field text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    positions bytea NOT NULL,
    CONSTRAINT posting_pkey PRIMARY KEY (log_id, number, field, value)
);

-- How many events of all indexed segments together have a value: what filter menus show.
CREATE TABLE audit.tally (
    log_id bigint NOT NULL,
    events bigint NOT NULL,
    field text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    CONSTRAINT tally_pkey PRIMARY KEY (log_id, field, value)
);

-- The second wall, as for entries (decision 0002).
CREATE VIEW audit.bound_segment AS
    SELECT * FROM audit.segment WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;
CREATE VIEW audit.bound_posting AS
    SELECT * FROM audit.posting WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;
CREATE VIEW audit.bound_tally AS
    SELECT * FROM audit.tally WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;

-- Add a segment of the bound log, whole or not at all: false when it is there already (another indexer was quicker). Arrays run in
-- parallel, one element for each posting; `p_tallied` names the fields whose values are counted over the whole log.
CREATE FUNCTION audit.add_segment(
    p_log_id bigint,
    p_number integer,
    p_first_at timestamptz,
    p_last_at timestamptz,
    p_events integer,
    p_field text[],
    p_value text[],
    p_count integer[],
    p_positions bytea[],
    p_tallied text[]
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $add$
BEGIN
    IF p_log_id IS DISTINCT FROM NULLIF(current_setting('audit.log_id', true), '')::bigint THEN
        RAISE EXCEPTION 'only the bound log is indexed' USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO audit.segment AS s (log_id, number, first_at, last_at, events)
        VALUES (p_log_id, p_number, p_first_at, p_last_at, p_events) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO audit.posting (log_id, number, field, value, events, positions)
        SELECT p_log_id, p_number, x.field, x.value, x.events, x.positions
        FROM unnest(p_field, p_value, p_count, p_positions) AS x(field, value, events, positions);
    INSERT INTO audit.tally AS t (log_id, field, value, events)
        SELECT p_log_id, x.field, x.value, x.events
        FROM unnest(p_field, p_value, p_count) AS x(field, value, events) WHERE x.field = ANY (p_tallied)
        ORDER BY x.field, x.value -- two indexers lock in the same order
        ON CONFLICT (log_id, field, value) DO UPDATE SET events = t.events + EXCLUDED.events;
    RETURN true;
END
$add$;

-- Whether one change has a path in one of the ranges [low, high), and these values: null asks for any. False for what cannot be read:
-- a damaged row must not stop a query. The values are compared as the canonical text spells them.
CREATE FUNCTION audit.changes_match(p_changes bytea, p_low text[], p_high text[], p_old text[], p_new text[]) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $match$
BEGIN
    RETURN EXISTS (
        SELECT FROM json_array_elements(convert_from(substr(p_changes, 33), 'UTF8')::json) AS c(change)
        WHERE (p_low IS NULL OR EXISTS (
                SELECT FROM unnest(p_low, p_high) AS r(low, high)
                WHERE (c.change ->> 'path') COLLATE "C" >= r.low AND (c.change ->> 'path') COLLATE "C" < r.high))
            AND (p_old IS NULL OR COALESCE(c.change ->> 'old', CASE WHEN json_typeof(c.change -> 'old') = 'null' THEN 'null' END) = ANY (p_old))
            AND (p_new IS NULL OR COALESCE(c.change ->> 'new', CASE WHEN json_typeof(c.change -> 'new') = 'null' THEN 'null' END) = ANY (p_new)));
EXCEPTION
    WHEN data_exception OR invalid_text_representation OR character_not_in_repertoire OR untranslatable_character THEN
        RETURN false;
END
$match$;

-- The first seq recorded at or after a moment, or the log's size: recorded_at never goes back, so halving finds it.
CREATE FUNCTION audit.first_recorded(p_log_id bigint, p_at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $first$
DECLARE
    v_low bigint := 0;
    v_high bigint;
    v_middle bigint;
    v_at timestamptz;
BEGIN
    SELECT l.size INTO v_high FROM audit.bound_log AS l WHERE l.log_id = p_log_id;
    WHILE v_low < v_high LOOP
        v_middle := (v_low + v_high) / 2;
        -- Pruned entries are the oldest.
        SELECT e.recorded_at INTO v_at FROM audit.bound_entry AS e WHERE e.log_id = p_log_id AND e.seq = v_middle;
        IF v_at IS NULL OR v_at < p_at THEN
            v_low := v_middle + 1;
        ELSE
            v_high := v_middle;
        END IF;
    END LOOP;
    RETURN COALESCE(v_low, 0);
END
$first$;

REVOKE ALL ON audit.segment, audit.posting, audit.tally FROM PUBLIC;
REVOKE ALL ON FUNCTION audit.add_segment, audit.changes_match, audit.first_recorded FROM PUBLIC;
GRANT SELECT ON audit.bound_segment, audit.bound_posting, audit.bound_tally TO audit_serving;
GRANT EXECUTE ON FUNCTION audit.add_segment, audit.changes_match, audit.first_recorded TO audit_serving;
