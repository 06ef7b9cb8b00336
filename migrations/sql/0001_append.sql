-- The only way into the log. One call, one short transaction: lock the head, find known ids, link, insert, move the head.
-- Arrays run in parallel, one element for each event; ids must be distinct within a call (the caller folds repeats).
-- Answers one row for each event, in order: `known` rows bring the first receipt with its salt, fingerprint and
-- ruleset, so that the caller tells a replay from a conflict; the rest is new.
-- Errors: AU001 the log's last time is over five minutes ahead of the clock; AU002 no such log; AU003 wrong isolation level.
CREATE FUNCTION audit.append_entries(
    p_log_id bigint,
    p_ruleset text,
    p_keep boolean[],
    p_id text[],
    p_salt bytea[],
    p_fingerprint bytea[],
    p_body text[],
    p_d_actor bytea[],
    p_d_actor_email bytea[],
    p_d_on_behalf_of bytea[],
    p_d_ip bytea[],
    p_d_context bytea[],
    p_d_target bytea[],
    p_d_text bytea[],
    p_d_metadata bytea[],
    p_d_changes bytea[],
    p_occurred_at timestamptz[],
    p_source_seq bigint[],
    p_action text[],
    p_verb text[],
    p_category text[],
    p_outcome text[],
    p_actor_type text[],
    p_actor_id text[],
    p_actor_name text[],
    p_actor_email text[],
    p_actor_role text[],
    p_actor_keys text[], -- array literals: PostgreSQL has no ragged arrays
    p_target_type text[],
    p_target_id text[],
    p_target_name text[],
    p_server_id text[],
    p_ip inet[],
    p_session text[],
    p_request_id text[],
    p_source_id text[],
    p_paths text[], -- array literals
    p_search text[]
) RETURNS TABLE (
    ord bigint, known boolean, kept boolean, epoch integer, seq bigint, recorded_at timestamptz,
    hash bytea, prev_hash bytea, salt bytea, fingerprint bytea, ruleset text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan -- the plan is always "probe the key"; planning it anew would be half the cost
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $append$
#variable_conflict use_column
DECLARE
    c_lf CONSTANT text := chr(10);
    v_count CONSTANT integer := cardinality(p_id);
    v_body_hash bytea[];
    v_known boolean[];
    v_seq bigint[] := array_fill(NULL::bigint, ARRAY[v_count]);
    v_hash bytea[] := array_fill(NULL::bytea, ARRAY[v_count]);
    v_prev bytea[] := array_fill(NULL::bytea, ARRAY[v_count]);
    v_epoch integer;
    v_size bigint;
    v_first_size bigint;
    v_last bytea;
    v_next bytea;
    v_at timestamptz;
    v_clock timestamptz;
    v_lead text;      -- the header's lines before seq
    v_middle text;    -- recorded_at and kind, the same for the whole call
    v_peaks bytea[];  -- Merkle frontier; only the first v_peak elements count
    v_peak integer := 0;
    v_merge bytea;
    v_bits bigint;
    v_frontier bytea;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        -- A snapshot taken before the lock wait would read a stale head and fork the chain.
        RAISE EXCEPTION 'append_entries needs READ COMMITTED' USING ERRCODE = 'AU003';
    END IF;

    -- Before the lock: everything that does not depend on the head.
    SELECT array_agg(sha256(convert_to('audit-service/body/v1' || c_lf || b.body, 'UTF8')) ORDER BY b.ord)
        INTO v_body_hash
        FROM unnest(p_body) WITH ORDINALITY AS b(body, ord);

    -- 1. Lock the head.
    SELECT l.epoch, l.size, l.last_hash, l.last_recorded_at, l.frontier,
           'audit-service/entry/v1' || c_lf || l.service_name || '/t/' || l.log_key || '/' || l.epoch || c_lf
        INTO v_epoch, v_size, v_last, v_at, v_frontier, v_lead
        FROM audit.log AS l WHERE l.log_id = p_log_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such log' USING ERRCODE = 'AU002';
    END IF;

    -- 2. In a statement of its own (a new snapshot, taken after the lock): which ids are known?
    -- LATERAL with LIMIT is a probe of the key for each id, whatever the statistics say. A plain join, planned while the table
    -- was empty, read all receipts of the log at every call until the first ANALYZE.
    SELECT array_agg(r.id IS NOT NULL ORDER BY i.ord)
        INTO v_known
        FROM unnest(p_id) WITH ORDINALITY AS i(id, ord)
        LEFT JOIN LATERAL (SELECT k.id FROM audit.receipt AS k WHERE k.log_id = p_log_id AND k.id = i.id LIMIT 1) AS r ON true;

    -- 3. One time for the call, never before the log's last.
    v_clock := clock_timestamp();
    IF v_at > v_clock + interval '5 minutes' THEN
        RAISE EXCEPTION 'the last entry is over five minutes ahead of the clock' USING ERRCODE = 'AU001';
    END IF;
    v_at := greatest(v_at, v_clock);
    v_middle := c_lf || (extract(epoch FROM v_at) * 1000000)::bigint || c_lf || 'event' || c_lf;

    -- 4. Link: header, hash, frontier.
    FOR i IN 1 .. octet_length(v_frontier) / 32 LOOP
        v_peak := i;
        v_peaks[i] := substr(v_frontier, 32 * i - 31, 32);
    END LOOP;
    v_first_size := v_size;
    FOR i IN 1 .. v_count LOOP
        CONTINUE WHEN v_known[i] OR NOT p_keep[i];
        v_next := sha256('\x00'::bytea || convert_to(
            v_lead || v_size || v_middle || encode(v_last, 'hex') || c_lf || encode(v_body_hash[i], 'hex') || c_lf, 'UTF8'));
        v_seq[i] := v_size;
        v_prev[i] := v_last;
        v_hash[i] := v_next;
        v_last := v_next;
        v_merge := v_next;
        v_bits := v_size;
        WHILE v_bits & 1 = 1 LOOP
            v_merge := sha256('\x01'::bytea || v_peaks[v_peak] || v_merge);
            v_peak := v_peak - 1;
            v_bits := v_bits >> 1;
        END LOOP;
        v_peak := v_peak + 1;
        v_peaks[v_peak] := v_merge;
        v_size := v_size + 1;
    END LOOP;

    -- 5. Insert, move the head.
    IF v_size > v_first_size THEN
        INSERT INTO audit.entry (
            log_id, seq, recorded_at, epoch, kind, prev_hash, body_hash, hash, body,
            d_actor, d_actor_email, d_on_behalf_of, d_ip, d_context, d_target, d_text, d_metadata, d_changes,
            id, occurred_at, source_seq, action, verb, category, outcome,
            actor_type, actor_id, actor_name, actor_email, actor_role, actor_keys,
            target_type, target_id, target_name, server_id, ip, session, request_id, source_id, paths, search)
        SELECT p_log_id, x.seq, v_at, v_epoch, 'event', x.prev_hash, x.body_hash, x.hash, x.body,
            x.d_actor, x.d_actor_email, x.d_on_behalf_of, x.d_ip, x.d_context, x.d_target, x.d_text, x.d_metadata, x.d_changes,
            x.id, x.occurred_at, x.source_seq, x.action, x.verb, x.category, x.outcome,
            x.actor_type, x.actor_id, x.actor_name, x.actor_email, x.actor_role, x.actor_keys::text[],
            x.target_type, x.target_id, x.target_name, x.server_id, x.ip, x.session, x.request_id, x.source_id,
            x.paths::text[], x.search
        FROM unnest(
            v_seq, v_prev, v_body_hash, v_hash, p_body,
            p_d_actor, p_d_actor_email, p_d_on_behalf_of, p_d_ip, p_d_context, p_d_target, p_d_text, p_d_metadata, p_d_changes,
            p_id, p_occurred_at, p_source_seq, p_action, p_verb, p_category, p_outcome,
            p_actor_type, p_actor_id, p_actor_name, p_actor_email, p_actor_role, p_actor_keys,
            p_target_type, p_target_id, p_target_name, p_server_id, p_ip, p_session, p_request_id, p_source_id, p_paths, p_search
        ) AS x(
            seq, prev_hash, body_hash, hash, body,
            d_actor, d_actor_email, d_on_behalf_of, d_ip, d_context, d_target, d_text, d_metadata, d_changes,
            id, occurred_at, source_seq, action, verb, category, outcome,
            actor_type, actor_id, actor_name, actor_email, actor_role, actor_keys,
            target_type, target_id, target_name, server_id, ip, session, request_id, source_id, paths, search)
        WHERE x.seq IS NOT NULL;

        v_frontier := '\x';
        FOR i IN 1 .. v_peak LOOP
            v_frontier := v_frontier || v_peaks[i];
        END LOOP;
        UPDATE audit.log AS l SET size = v_size, last_hash = v_last, last_recorded_at = v_at, frontier = v_frontier
            WHERE l.log_id = p_log_id;
    END IF;

    -- 6. Receipts: for what is new, kept or not.
    INSERT INTO audit.receipt (log_id, seq, recorded_at, epoch, kept, id, prev_hash, hash, salt, fingerprint, ruleset)
        SELECT p_log_id, x.seq, v_at, v_epoch, x.keep, x.id, x.prev_hash, x.hash, x.salt, x.fingerprint, p_ruleset
        FROM unnest(v_known, p_keep, p_id, v_seq, v_prev, v_hash, p_salt, p_fingerprint)
            AS x(known, keep, id, seq, prev_hash, hash, salt, fingerprint)
        WHERE NOT x.known;

    RETURN QUERY
        SELECT x.ord, x.known, COALESCE(r.kept, x.keep), COALESCE(r.epoch, v_epoch), COALESCE(r.seq, x.seq),
               COALESCE(r.recorded_at, v_at), COALESCE(r.hash, x.hash), COALESCE(r.prev_hash, x.prev_hash),
               r.salt, r.fingerprint, r.ruleset
        FROM unnest(v_known, p_keep, p_id, v_seq, v_prev, v_hash) WITH ORDINALITY
            AS x(known, keep, id, seq, prev_hash, hash, ord)
        LEFT JOIN LATERAL (SELECT k.* FROM audit.receipt AS k
            WHERE x.known AND k.log_id = p_log_id AND k.id = x.id LIMIT 1) AS r ON true
        ORDER BY x.ord;
END
$append$;
