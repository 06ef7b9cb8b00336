-- Producers (decision 0015): how many events each source.id has brought, and which numbers (source.seq) were seen. Counted behind the log
-- by whoever runs the indexer; an append knows nothing of it. What was counted stays when retention takes the entries themselves.

-- How much of a log is counted: the entries below `size`.
CREATE TABLE audit.source_progress (
    log_id bigint NOT NULL,
    size bigint NOT NULL,
    CONSTRAINT source_progress_pkey PRIMARY KEY (log_id)
);

-- One row for each source.id. `numbered`: its events with a source.seq. The rest says what source_range holds of it: how many ranges, and
-- how many numbers in them together, so that totals need not be added up.
CREATE TABLE audit.source (
    log_id bigint NOT NULL,
    events bigint NOT NULL,
    numbered bigint NOT NULL,
    first_seq bigint,
    last_seq bigint,
    seen_ranges bigint NOT NULL,
    seen_numbers bigint NOT NULL,
    repeated_ranges bigint NOT NULL,
    repeated_numbers bigint NOT NULL,
    last_recorded_at timestamptz NOT NULL,
    source_id text COLLATE "C" NOT NULL,
    CONSTRAINT source_pkey PRIMARY KEY (log_id, source_id)
) WITH (fillfactor = 80);

-- The numbers seen at all, and those seen more than once (`repeated`), each as the fewest ranges there can be: no two overlap or adjoin.
-- `last_seq` is in the range, as one past the largest number is no bigint. It is in no index, so a range that grows stays on its page (HOT).
CREATE TABLE audit.source_range (
    log_id bigint NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    repeated boolean NOT NULL,
    source_id text COLLATE "C" NOT NULL,
    CONSTRAINT source_range_pkey PRIMARY KEY (log_id, source_id, repeated, first_seq),
    CONSTRAINT source_range_order CHECK (first_seq <= last_seq)
) WITH (fillfactor = 80);

-- The second wall, as for entries (decision 0002).
CREATE VIEW audit.bound_source_progress AS
    SELECT * FROM audit.source_progress WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;
CREATE VIEW audit.bound_source AS
    SELECT * FROM audit.source WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;
CREATE VIEW audit.bound_source_range AS
    SELECT * FROM audit.source_range WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;

-- What the entries [p_from, p_to) of the bound log, none of them counted yet, add to what is: one row for each source in them, or each in
-- `p_sources`. `seen_before` are the stored ranges that its numbers touch and `seen` what becomes of them; likewise `repeated`. Ranges
-- are numeric, [first, last + 1). Counts are differences, those of ranges negative where ranges grow together. Both the writer below and
-- readers, who lay this over what is stored, take it from here. Cost: the entries, and two probes of a key for each run of numbers.
CREATE FUNCTION audit.source_changes(p_log_id bigint, p_from bigint, p_to bigint, p_sources text[])
RETURNS TABLE (
    source_id text, events bigint, numbered bigint, first_seq bigint, last_seq bigint, last_recorded_at timestamptz,
    seen_ranges bigint, seen_numbers bigint, repeated_ranges bigint, repeated_numbers bigint,
    seen_before nummultirange, seen nummultirange, repeated_before nummultirange, repeated nummultirange
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off -- as for append_entries: whatever the statistics say, these are probes of keys
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $changes$
    WITH met AS MATERIALIZED (
        SELECT e.source_id, e.source_seq AS number, count(*) AS times, max(e.recorded_at) AS last_recorded_at
        FROM audit.bound_entry AS e
        WHERE e.log_id = p_log_id AND e.seq >= p_from AND e.seq < p_to AND e.kind = 'event' AND e.source_id IS NOT NULL
            AND (p_sources IS NULL OR e.source_id = ANY (p_sources))
        GROUP BY e.source_id, e.source_seq
    ), found AS MATERIALIZED (
        SELECT m.source_id, sum(m.times)::bigint AS events, COALESCE(sum(m.times) FILTER (WHERE m.number IS NOT NULL), 0)::bigint AS numbered,
            min(m.number) AS first_seq, max(m.number) AS last_seq, max(m.last_recorded_at) AS last_recorded_at,
            COALESCE(range_agg(numrange(m.number, m.number::numeric + 1)) FILTER (WHERE m.number IS NOT NULL), '{}') AS met,
            COALESCE(range_agg(numrange(m.number, m.number::numeric + 1)) FILTER (WHERE m.number IS NOT NULL AND m.times > 1), '{}') AS twice
        FROM met AS m GROUP BY m.source_id
    ), touched AS MATERIALIZED (
        SELECT f.source_id,
            COALESCE(range_agg(numrange(r.first_seq, r.last_seq::numeric + 1)) FILTER (WHERE NOT r.repeated), '{}') AS seen,
            COALESCE(range_agg(numrange(r.first_seq, r.last_seq::numeric + 1)) FILTER (WHERE r.repeated), '{}') AS repeated
        FROM found AS f
        CROSS JOIN LATERAL unnest(f.met) AS run
        CROSS JOIN (VALUES (false), (true)) AS k(repeated)
        CROSS JOIN LATERAL (
            -- The last range that begins before the run, if it reaches it; and all that begin within it or right behind.
            SELECT * FROM (
                SELECT b.first_seq, b.last_seq, b.repeated FROM audit.bound_source_range AS b
                WHERE b.log_id = p_log_id AND b.source_id = f.source_id AND b.repeated = k.repeated AND b.first_seq < lower(run)::bigint
                ORDER BY b.first_seq DESC LIMIT 1
            ) AS before WHERE before.last_seq::numeric + 1 >= lower(run)
            UNION ALL
            SELECT b.first_seq, b.last_seq, b.repeated FROM audit.bound_source_range AS b
            WHERE b.log_id = p_log_id AND b.source_id = f.source_id AND b.repeated = k.repeated
                AND b.first_seq >= lower(run)::bigint AND b.first_seq <= least(upper(run), 9223372036854775807)::bigint
        ) AS r
        GROUP BY f.source_id
    ), merged AS (
        SELECT f.*, COALESCE(t.seen, '{}') AS seen_before, COALESCE(t.seen, '{}') + f.met AS seen, COALESCE(t.repeated, '{}') AS repeated_before,
            COALESCE(t.repeated, '{}') + f.twice + f.met * COALESCE(t.seen, '{}') AS repeated
        FROM found AS f LEFT JOIN touched AS t ON t.source_id = f.source_id
    )
    SELECT m.source_id, m.events, m.numbered, m.first_seq, m.last_seq, m.last_recorded_at,
        n.seen_ranges, n.seen_numbers, n.repeated_ranges, n.repeated_numbers, m.seen_before, m.seen, m.repeated_before, m.repeated
    FROM merged AS m
    CROSS JOIN LATERAL (
        SELECT COALESCE(sum(v.sign) FILTER (WHERE NOT v.repeated), 0)::bigint AS seen_ranges,
            COALESCE(sum(v.sign * (upper(r) - lower(r))) FILTER (WHERE NOT v.repeated), 0)::bigint AS seen_numbers,
            COALESCE(sum(v.sign) FILTER (WHERE v.repeated), 0)::bigint AS repeated_ranges,
            COALESCE(sum(v.sign * (upper(r) - lower(r))) FILTER (WHERE v.repeated), 0)::bigint AS repeated_numbers
        FROM (VALUES (false, -1, m.seen_before), (false, 1, m.seen), (true, -1, m.repeated_before), (true, 1, m.repeated))
            AS v(repeated, sign, ranges)
        CROSS JOIN LATERAL unnest(v.ranges) AS r
    ) AS n
$changes$;

-- Count the next entries of the bound log, at most `p_limit`, whole or not at all; how many, 0 when none is left. It reads them itself: the
-- caller can make it count, but not count anything else. The row of progress is locked throughout, so two counters take turns.
CREATE FUNCTION audit.count_sources(p_log_id bigint, p_limit bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $count$
DECLARE
    v_from bigint;
    v_to bigint;
    v record;
BEGIN
    IF p_log_id IS DISTINCT FROM NULLIF(current_setting('audit.log_id', true), '')::bigint THEN
        RAISE EXCEPTION 'only the bound log is counted' USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO audit.source_progress (log_id, size) SELECT l.log_id, 0 FROM audit.log AS l WHERE l.log_id = p_log_id ON CONFLICT DO NOTHING;
    SELECT p.size INTO v_from FROM audit.source_progress AS p WHERE p.log_id = p_log_id FOR UPDATE;
    -- In statements of their own, after the lock: an append commits its entries and the size together.
    SELECT least(l.size, v_from + p_limit) INTO v_to FROM audit.log AS l WHERE l.log_id = p_log_id;
    IF v_to IS NULL OR v_to <= v_from THEN
        RETURN 0;
    END IF;

    FOR v IN SELECT * FROM audit.source_changes(p_log_id, v_from, v_to, NULL) LOOP
        DELETE FROM audit.source_range AS r
            USING (
                SELECT false AS repeated, lower(x)::bigint AS first_seq FROM unnest(v.seen_before) AS x
                UNION ALL SELECT true, lower(x)::bigint FROM unnest(v.repeated_before) AS x
                EXCEPT (
                    SELECT false, lower(x)::bigint FROM unnest(v.seen) AS x
                    UNION ALL SELECT true, lower(x)::bigint FROM unnest(v.repeated) AS x)
            ) AS gone
            WHERE r.log_id = p_log_id AND r.source_id = v.source_id AND r.repeated = gone.repeated AND r.first_seq = gone.first_seq;
        INSERT INTO audit.source_range AS r (log_id, source_id, repeated, first_seq, last_seq)
            SELECT p_log_id, v.source_id, false, lower(x)::bigint, (upper(x) - 1)::bigint FROM unnest(v.seen) AS x
            UNION ALL SELECT p_log_id, v.source_id, true, lower(x)::bigint, (upper(x) - 1)::bigint FROM unnest(v.repeated) AS x
            ON CONFLICT (log_id, source_id, repeated, first_seq) DO UPDATE SET last_seq = EXCLUDED.last_seq
                WHERE r.last_seq <> EXCLUDED.last_seq;
        INSERT INTO audit.source AS s (log_id, source_id, events, numbered, first_seq, last_seq, last_recorded_at,
                seen_ranges, seen_numbers, repeated_ranges, repeated_numbers)
            VALUES (p_log_id, v.source_id, v.events, v.numbered, v.first_seq, v.last_seq, v.last_recorded_at,
                v.seen_ranges, v.seen_numbers, v.repeated_ranges, v.repeated_numbers)
            ON CONFLICT (log_id, source_id) DO UPDATE SET
                events = s.events + EXCLUDED.events,
                numbered = s.numbered + EXCLUDED.numbered,
                first_seq = least(s.first_seq, EXCLUDED.first_seq), -- null only when both are
                last_seq = greatest(s.last_seq, EXCLUDED.last_seq),
                last_recorded_at = greatest(s.last_recorded_at, EXCLUDED.last_recorded_at),
                seen_ranges = s.seen_ranges + EXCLUDED.seen_ranges,
                seen_numbers = s.seen_numbers + EXCLUDED.seen_numbers,
                repeated_ranges = s.repeated_ranges + EXCLUDED.repeated_ranges,
                repeated_numbers = s.repeated_numbers + EXCLUDED.repeated_numbers;
    END LOOP;
    UPDATE audit.source_progress AS p SET size = v_to WHERE p.log_id = p_log_id;
    RETURN v_to - v_from;
END
$count$;

-- What was seen stays seen: before an entry loses its number, or goes, everything up to the log's end is counted, in the same transaction.
-- Appends never come here. Of a row that is counted already it costs one probe of a key.
CREATE FUNCTION audit.keep_sources() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $keep$
DECLARE
    v_bound CONSTANT text := current_setting('audit.log_id', true);
BEGIN
    IF NOT EXISTS (SELECT FROM audit.source_progress AS p WHERE p.log_id = OLD.log_id AND p.size > OLD.seq) THEN
        PERFORM set_config('audit.log_id', OLD.log_id::text, true);
        WHILE audit.count_sources(OLD.log_id, 16384) = 16384 LOOP
            -- Less than was allowed is all there was: what is appended meanwhile can wait.
        END LOOP;
        PERFORM set_config('audit.log_id', COALESCE(v_bound, ''), true);
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$keep$;

CREATE TRIGGER entry_keep_sources_of_update BEFORE UPDATE ON audit.entry FOR EACH ROW
    WHEN (OLD.source_id IS NOT NULL AND (NEW.source_id, NEW.source_seq) IS DISTINCT FROM (OLD.source_id, OLD.source_seq))
    EXECUTE FUNCTION audit.keep_sources();
CREATE TRIGGER entry_keep_sources_of_delete BEFORE DELETE ON audit.entry FOR EACH ROW
    WHEN (OLD.source_id IS NOT NULL) EXECUTE FUNCTION audit.keep_sources();
ALTER TABLE audit.entry ENABLE ALWAYS TRIGGER entry_keep_sources_of_update;
ALTER TABLE audit.entry ENABLE ALWAYS TRIGGER entry_keep_sources_of_delete;

REVOKE ALL ON audit.source_progress, audit.source, audit.source_range FROM PUBLIC;
REVOKE ALL ON FUNCTION audit.source_changes, audit.count_sources, audit.keep_sources FROM PUBLIC;
GRANT SELECT ON audit.bound_source_progress, audit.bound_source, audit.bound_source_range TO audit_serving;
GRANT EXECUTE ON FUNCTION audit.source_changes, audit.count_sources TO audit_serving;
