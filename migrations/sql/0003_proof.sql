-- Checkpoints and tiles (proof), and lawful forgetting: drop, erase, prune, hold. Runs as audit_owner; the functions that forget are
-- made as audit_eraser, the one that resumes as audit_resumer, so that the guards can tell them by current_user.
--
-- A control entry comes as jsonb: its exact `body`, the projections that follow from it, and `d_target` in hex where it has one. What a
-- function does is read from that body, so that the record and the deed cannot differ.
-- Errors: AU002 no such log; AU003 wrong isolation level; AU010 the search index moved on, prepare again; AU011 under legal hold;
-- AU012 the control entry does not fit the log; AU013 not the holder of the signer's lease.

-- Entries of a log that are no events are few, and every verification starts with them.
CREATE INDEX entry_control ON audit.entry (log_id, seq) WHERE kind <> 'event';

-- Entries below it were pruned, as a `prune` entry says; what is still there is being deleted.
ALTER TABLE audit.log ADD COLUMN pruned_before bigint NOT NULL DEFAULT 0;
CREATE OR REPLACE VIEW audit.bound_log AS
    SELECT * FROM audit.log WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;

-- Raised by all that forgets, so that an indexer never adds what it read before.
CREATE TABLE audit.forgetting (
    log_id bigint NOT NULL,
    generation bigint NOT NULL DEFAULT 0,
    CONSTRAINT forgetting_pkey PRIMARY KEY (log_id)
);

-- Every checkpoint ever signed, also those that only repeat a size (silence is signed too).
CREATE TABLE audit.checkpoint (
    log_id bigint NOT NULL,
    size bigint NOT NULL,
    signed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    epoch integer NOT NULL,
    note text COLLATE "C" NOT NULL,
    CONSTRAINT checkpoint_pkey PRIMARY KEY (log_id, size, signed_at)
);
CREATE INDEX checkpoint_time ON audit.checkpoint (log_id, signed_at);

-- Full tiles of the hash tree (C2SP tlog-tiles): 256 hashes of level `level`, number `number`. Never deleted, rebuildable from the entries.
CREATE TABLE audit.tile (
    log_id bigint NOT NULL,
    number bigint NOT NULL,
    level smallint NOT NULL,
    hashes bytea NOT NULL,
    CONSTRAINT tile_pkey PRIMARY KEY (log_id, level, number),
    CONSTRAINT tile_full CHECK (octet_length(hashes) = 8192)
);
ALTER TABLE audit.tile ALTER COLUMN hashes SET STORAGE EXTERNAL; -- hashes do not compress

-- One row for the installation: which key signs, and which process holds the lease.
CREATE TABLE audit.signer (
    one boolean NOT NULL DEFAULT true,
    public_key bytea NOT NULL,
    holder text NOT NULL,
    leased_until timestamptz NOT NULL,
    CONSTRAINT signer_pkey PRIMARY KEY (one),
    CONSTRAINT signer_one CHECK (one),
    CONSTRAINT signer_key CHECK (octet_length(public_key) = 32)
);

-- What is under legal hold now. A lifted hold goes: that it was, the log says, and whom it was about may have to be erased.
CREATE TABLE audit.hold (
    log_id bigint NOT NULL,
    from_seq bigint,
    to_seq bigint,
    set_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    hold_id text COLLATE "C" NOT NULL,
    target_type text COLLATE "C",
    target_id text COLLATE "C",
    reason text NOT NULL,
    CONSTRAINT hold_pkey PRIMARY KEY (log_id, hold_id),
    CONSTRAINT hold_what CHECK ((from_seq IS NULL) = (to_seq IS NULL) AND (target_type IS NULL) = (target_id IS NULL)
        AND (from_seq IS NULL) <> (target_id IS NULL))
);

-- Days that entries of a category keep their bodies; the category '' stands for all others.
CREATE TABLE audit.retention_policy (
    log_id bigint NOT NULL,
    days integer NOT NULL,
    category text COLLATE "C" NOT NULL DEFAULT '',
    CONSTRAINT retention_policy_pkey PRIMARY KEY (log_id, category),
    CONSTRAINT retention_policy_days CHECK (days BETWEEN 1 AND 36500)
);

-- What was asked for over HTTP, to be carried out by the schedule or the CLI. `details` may name a person: null once it is done.
CREATE TABLE audit.request (
    log_id bigint NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    request_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL DEFAULT 'pending',
    asked_by text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    details jsonb,
    result jsonb,
    CONSTRAINT request_pkey PRIMARY KEY (log_id, request_id),
    CONSTRAINT request_kind CHECK (kind IN ('retention', 'erasure')),
    CONSTRAINT request_status CHECK (status IN ('pending', 'done', 'refused'))
);

CREATE VIEW audit.bound_checkpoint AS
    SELECT * FROM audit.checkpoint WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;
CREATE VIEW audit.bound_tile AS
    SELECT * FROM audit.tile WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;
CREATE VIEW audit.bound_hold AS
    SELECT * FROM audit.hold WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;
CREATE VIEW audit.bound_retention_policy AS
    SELECT * FROM audit.retention_policy WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;
CREATE VIEW audit.bound_request AS
    SELECT * FROM audit.request WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;
CREATE VIEW audit.bound_forgetting AS
    SELECT * FROM audit.forgetting WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;

-- The guards let through what the functions below do.
CREATE OR REPLACE FUNCTION audit.guard_log_update() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (NEW.log_id, NEW.service_name, NEW.log_key) IS DISTINCT FROM (OLD.log_id, OLD.service_name, OLD.log_key)
        OR NEW.epoch IS DISTINCT FROM OLD.epoch AND NOT (current_user = 'audit_resumer' AND NEW.epoch = OLD.epoch + 1) THEN
        RAISE EXCEPTION 'the origin of a log never changes' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.size < OLD.size THEN
        RAISE EXCEPTION 'a log never shrinks' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.pruned_before IS DISTINCT FROM OLD.pruned_before
        AND NOT (current_user = 'audit_eraser' AND NEW.pruned_before > OLD.pruned_before AND NEW.pruned_before < NEW.size) THEN
        RAISE EXCEPTION 'only pruning moves the cut, and only forward' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION audit.guard_entry_delete() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_user = 'audit_eraser'
        AND EXISTS (SELECT FROM audit.log AS l WHERE l.log_id = OLD.log_id AND OLD.seq < l.pruned_before) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'DELETE on audit.entry is refused: the log is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
DROP TRIGGER entry_no_delete ON audit.entry;
CREATE TRIGGER entry_no_delete BEFORE DELETE ON audit.entry FOR EACH ROW EXECUTE FUNCTION audit.guard_entry_delete();
ALTER TABLE audit.entry ENABLE ALWAYS TRIGGER entry_no_delete;
CREATE TRIGGER checkpoint_no_change BEFORE UPDATE OR DELETE ON audit.checkpoint FOR EACH ROW EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER checkpoint_no_truncate BEFORE TRUNCATE ON audit.checkpoint FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
ALTER TABLE audit.checkpoint ENABLE ALWAYS TRIGGER checkpoint_no_change;
ALTER TABLE audit.checkpoint ENABLE ALWAYS TRIGGER checkpoint_no_truncate;

-- Append one control entry, with its receipt. Only the functions below call it; each for its own kinds.
CREATE FUNCTION audit.append_control(p_log_id bigint, p_kind text, p_entry jsonb)
RETURNS TABLE (seq bigint, epoch integer, recorded_at timestamptz, hash bytea, prev_hash bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $control$
#variable_conflict use_column
DECLARE
    c_lf CONSTANT text := chr(10);
    v_log audit.log%ROWTYPE;
    v_at timestamptz;
    v_clock timestamptz;
    v_body_hash bytea;
    v_hash bytea;
    v_merge bytea;
    v_frontier bytea;
    v_bits bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'append_control needs READ COMMITTED' USING ERRCODE = 'AU003';
    END IF;
    IF p_entry ->> 'body' IS NULL OR (p_entry ->> 'body')::jsonb ->> 'action' IS DISTINCT FROM 'audit.' || p_kind THEN
        RAISE EXCEPTION 'the body is of another kind' USING ERRCODE = 'AU012';
    END IF;
    v_body_hash := sha256(convert_to('audit-service/body/v1' || c_lf || (p_entry ->> 'body'), 'UTF8'));

    SELECT l.* INTO v_log FROM audit.log AS l WHERE l.log_id = p_log_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such log' USING ERRCODE = 'AU002';
    END IF;
    v_clock := clock_timestamp();
    IF v_log.last_recorded_at > v_clock + interval '5 minutes' THEN
        RAISE EXCEPTION 'the last entry is over five minutes ahead of the clock' USING ERRCODE = 'AU001';
    END IF;
    v_at := greatest(v_log.last_recorded_at, v_clock);
    v_hash := sha256('\x00'::bytea || convert_to(
        'audit-service/entry/v1' || c_lf || v_log.service_name || '/t/' || v_log.log_key || '/' || v_log.epoch || c_lf
        || v_log.size || c_lf || (extract(epoch FROM v_at) * 1000000)::bigint || c_lf || p_kind || c_lf
        || encode(v_log.last_hash, 'hex') || c_lf || encode(v_body_hash, 'hex') || c_lf, 'UTF8'));
    v_merge := v_hash;
    v_frontier := v_log.frontier;
    v_bits := v_log.size;
    WHILE v_bits & 1 = 1 LOOP
        v_merge := sha256('\x01'::bytea || substr(v_frontier, octet_length(v_frontier) - 31) || v_merge);
        v_frontier := substr(v_frontier, 1, octet_length(v_frontier) - 32);
        v_bits := v_bits >> 1;
    END LOOP;
    INSERT INTO audit.entry (log_id, seq, recorded_at, epoch, kind, prev_hash, body_hash, hash, body, d_target, id, occurred_at,
            action, verb, category, outcome, target_type, target_id, target_name, source_id, search)
        VALUES (p_log_id, v_log.size, v_at, v_log.epoch, p_kind, v_log.last_hash, v_body_hash, v_hash, p_entry ->> 'body',
            decode(p_entry ->> 'd_target', 'hex'), p_entry ->> 'id', (p_entry ->> 'occurred_at')::timestamptz,
            p_entry ->> 'action', p_entry ->> 'verb', p_entry ->> 'category', p_entry ->> 'outcome', p_entry ->> 'target_type',
            p_entry ->> 'target_id', p_entry ->> 'target_name', p_entry ->> 'source_id', p_entry ->> 'search');
    INSERT INTO audit.receipt (log_id, seq, recorded_at, epoch, kept, id, prev_hash, hash, ruleset)
        VALUES (p_log_id, v_log.size, v_at, v_log.epoch, true, p_entry ->> 'id', v_log.last_hash, v_hash, '');
    UPDATE audit.log AS l SET size = v_log.size + 1, last_hash = v_hash, last_recorded_at = v_at, frontier = v_frontier || v_merge
        WHERE l.log_id = p_log_id;
    RETURN QUERY SELECT v_log.size, v_log.epoch, v_at, v_hash, v_log.last_hash;
END
$control$;

-- Make every indexer that is reading start anew, and wait for one that is adding. Refused when anything was forgotten since
-- `p_generation` was read: what was prepared then may hold values that are gone now. Null asks nothing. Whoever forgets, or sets a hold,
-- keeps the log's row of `forgetting` to the end of the transaction, so that one follows the other.
CREATE FUNCTION audit.raise_generation(p_log_id bigint, p_generation bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $raise$
DECLARE
    v_generation bigint;
BEGIN
    INSERT INTO audit.forgetting AS f (log_id, generation) VALUES (p_log_id, 1)
        ON CONFLICT (log_id) DO UPDATE SET generation = f.generation + 1
        RETURNING f.generation INTO v_generation;
    IF v_generation - 1 <> p_generation THEN
        RAISE EXCEPTION 'the log moved on' USING ERRCODE = 'AU010';
    END IF;
END
$raise$;

-- Take a segment's postings out of the index and put others in; its row stays, so that segments stay without holes.
CREATE FUNCTION audit.put_segment(
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
        SELECT c.field, c.value, sum(c.events) AS events FROM (
            SELECT g.field, g.value, -g.events::bigint AS events FROM gone AS g
            UNION ALL
            SELECT x.field, x.value, x.events FROM unnest(p_field, p_value, p_count) AS x(field, value, events)
        ) AS c
        WHERE c.field = ANY (p_tallied) GROUP BY c.field, c.value HAVING sum(c.events) <> 0
    )
    INSERT INTO audit.tally AS t (log_id, field, value, events)
        SELECT p_log_id, c.field, c.value, c.events FROM change AS c ORDER BY c.field, c.value
        ON CONFLICT (log_id, field, value) DO UPDATE SET events = t.events + EXCLUDED.events;
    DELETE FROM audit.tally AS t WHERE t.log_id = p_log_id AND t.events <= 0;
    INSERT INTO audit.posting (log_id, number, field, value, events, positions)
        SELECT p_log_id, p_number, x.field, x.value, x.events, x.positions
        FROM unnest(p_field, p_value, p_count, p_positions) AS x(field, value, events, positions);
END
$put$;

-- The same as an act of its own, for the segments of what was pruned.
CREATE FUNCTION audit.replace_segment(
    p_log_id bigint, p_generation bigint, p_number integer, p_first_at timestamptz, p_last_at timestamptz, p_events integer,
    p_field text[], p_value text[], p_count integer[], p_positions bytea[], p_tallied text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $replace$
BEGIN
    PERFORM audit.raise_generation(p_log_id, p_generation);
    PERFORM audit.put_segment(p_log_id, p_number, p_first_at, p_last_at, p_events, p_field, p_value, p_count, p_positions, p_tallied);
END
$replace$;

-- As before, and refused when anything was forgotten since `p_generation` was read, which comes before the entries are read.
DROP FUNCTION audit.add_segment;
CREATE FUNCTION audit.add_segment(
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
        SELECT p_log_id, x.field, x.value, x.events
        FROM unnest(p_field, p_value, p_count) AS x(field, value, events) WHERE x.field = ANY (p_tallied)
        ORDER BY x.field, x.value
        ON CONFLICT (log_id, field, value) DO UPDATE SET events = t.events + EXCLUDED.events;
    RETURN true;
END
$add$;

-- The signer's side.

-- 'held' when the lease is the caller's now; 'leased' while another process has it; 'other key' when another key signs here.
CREATE FUNCTION audit.take_signer_lease(p_public_key bytea, p_holder text, p_seconds integer) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $lease$
DECLARE
    v_signer audit.signer%ROWTYPE;
BEGIN
    INSERT INTO audit.signer (public_key, holder, leased_until)
        VALUES (p_public_key, p_holder, clock_timestamp() + make_interval(secs => p_seconds)) ON CONFLICT DO NOTHING;
    SELECT s.* INTO v_signer FROM audit.signer AS s FOR UPDATE;
    IF v_signer.public_key <> p_public_key THEN
        RETURN 'other key';
    ELSIF v_signer.holder <> p_holder AND v_signer.leased_until > clock_timestamp() THEN
        RETURN 'leased';
    END IF;
    UPDATE audit.signer SET holder = p_holder, leased_until = clock_timestamp() + make_interval(secs => p_seconds);
    RETURN 'held';
END
$lease$;

CREATE FUNCTION audit.release_signer_lease(p_holder text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $release$
    UPDATE audit.signer SET leased_until = clock_timestamp() WHERE holder = p_holder;
$release$;

CREATE FUNCTION audit.require_signer(p_holder text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $require$
BEGIN
    -- FOR SHARE: nobody takes the lease over before the caller's transaction ends.
    PERFORM FROM audit.signer AS s WHERE s.holder = p_holder AND s.leased_until > clock_timestamp() FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the lease is not held' USING ERRCODE = 'AU013';
    END IF;
END
$require$;

CREATE FUNCTION audit.publish_checkpoint(p_log_id bigint, p_holder text, p_size bigint, p_epoch integer, p_note text)
RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $publish$
DECLARE
    v_at timestamptz := clock_timestamp();
BEGIN
    PERFORM audit.require_signer(p_holder);
    IF NOT EXISTS (SELECT FROM audit.log AS l WHERE l.log_id = p_log_id AND l.size >= p_size AND l.epoch >= p_epoch) THEN
        RAISE EXCEPTION 'the log is smaller than its checkpoint' USING ERRCODE = 'AU012';
    END IF;
    INSERT INTO audit.checkpoint (log_id, size, signed_at, epoch, note) VALUES (p_log_id, p_size, v_at, p_epoch, p_note);
    RETURN v_at;
END
$publish$;

-- A tile that is there already stays, whatever is brought: the caller compares.
CREATE FUNCTION audit.store_tiles(p_log_id bigint, p_holder text, p_level smallint[], p_number bigint[], p_hashes bytea[]) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $tiles$
BEGIN
    PERFORM audit.require_signer(p_holder);
    INSERT INTO audit.tile (log_id, level, number, hashes)
        SELECT p_log_id, x.level, x.number, x.hashes FROM unnest(p_level, p_number, p_hashes) AS x(level, number, hashes)
        ON CONFLICT DO NOTHING;
END
$tiles$;

CREATE FUNCTION audit.record_signer(p_log_id bigint, p_holder text, p_entry jsonb)
RETURNS TABLE (seq bigint, epoch integer, recorded_at timestamptz, hash bytea, prev_hash bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $signer$
BEGIN
    PERFORM audit.require_signer(p_holder);
    RETURN QUERY SELECT * FROM audit.append_control(p_log_id, 'signer', p_entry);
END
$signer$;

-- The key that signs from now on; the caller signs with the old one until then.
CREATE FUNCTION audit.change_signing_key(p_holder text, p_old bytea, p_new bytea) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $change$
BEGIN
    PERFORM audit.require_signer(p_holder);
    UPDATE audit.signer SET public_key = p_new WHERE public_key = p_old;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'another key signs here' USING ERRCODE = 'AU013';
    END IF;
END
$change$;

-- Requests, asked for by the workers.
CREATE FUNCTION audit.add_request(p_log_id bigint, p_request_id text, p_kind text, p_asked_by text, p_reason text, p_details jsonb)
RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $request$
DECLARE
    v_at timestamptz := clock_timestamp();
BEGIN
    IF p_log_id IS DISTINCT FROM NULLIF(current_setting('audit.log_id', true), '')::bigint THEN
        RAISE EXCEPTION 'only the bound log' USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO audit.request (log_id, request_id, asked_at, kind, asked_by, reason, details)
        VALUES (p_log_id, p_request_id, v_at, p_kind, p_asked_by, p_reason, p_details);
    RETURN v_at;
END
$request$;

-- What these roles do below.
GRANT SELECT ON audit.log, audit.segment, audit.checkpoint, audit.hold, audit.receipt TO audit_eraser;
GRANT UPDATE (pruned_before) ON audit.log TO audit_eraser;
GRANT DELETE ON audit.entry TO audit_eraser;
GRANT INSERT, DELETE ON audit.hold TO audit_eraser;
GRANT SELECT ON audit.log TO audit_resumer;
GRANT UPDATE (epoch) ON audit.log TO audit_resumer;
REVOKE ALL ON FUNCTION audit.append_control, audit.raise_generation, audit.put_segment, audit.replace_segment, audit.add_segment, audit.take_signer_lease,
    audit.release_signer_lease, audit.require_signer, audit.publish_checkpoint, audit.store_tiles, audit.record_signer,
    audit.change_signing_key, audit.add_request, audit.guard_entry_delete FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.append_control TO audit_eraser, audit_resumer;
GRANT EXECUTE ON FUNCTION audit.raise_generation, audit.put_segment TO audit_eraser;
GRANT EXECUTE ON FUNCTION audit.replace_segment TO audit_retention;
GRANT EXECUTE ON FUNCTION audit.require_signer TO audit_resumer;
GRANT USAGE, CREATE ON SCHEMA audit TO audit_eraser, audit_resumer; -- CREATE only until the end of this script

SET ROLE audit_eraser;

-- Refuse what is under legal hold: entries of ranges, and entries of held targets.
CREATE FUNCTION audit.require_no_hold(p_log_id bigint, p_from bigint[], p_to bigint[]) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $hold$
BEGIN
    IF EXISTS (
        SELECT FROM audit.hold AS h, unnest(p_from, p_to) AS r(low, high)
        WHERE h.log_id = p_log_id AND h.from_seq < r.high AND h.to_seq > r.low
    ) OR EXISTS (
        SELECT FROM audit.hold AS h, unnest(p_from, p_to) AS r(low, high), audit.entry AS e
        WHERE h.log_id = p_log_id AND h.target_id IS NOT NULL
            AND e.log_id = p_log_id AND e.seq >= r.low AND e.seq < r.high AND e.kind = 'event'
            AND e.target_type = h.target_type AND e.target_id = h.target_id
    ) THEN
        RAISE EXCEPTION 'under legal hold' USING ERRCODE = 'AU011';
    END IF;
END
$hold$;

-- Keep the index in step. `p_generation`: how often anything had been forgotten, and `p_segments`: how many segments were in the index,
-- when the call was prepared; `p_number`: the one of them that all the seqs lie in, null when none of them is indexed yet.
CREATE FUNCTION audit.forget_index(
    p_log_id bigint, p_generation bigint, p_segments integer, p_number integer, p_first_at timestamptz, p_last_at timestamptz, p_events integer,
    p_field text[], p_value text[], p_count integer[], p_positions bytea[], p_tallied text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $index$
BEGIN
    PERFORM audit.raise_generation(p_log_id, p_generation);
    IF p_segments IS DISTINCT FROM (SELECT COALESCE(max(s.number) + 1, 0) FROM audit.segment AS s WHERE s.log_id = p_log_id) THEN
        RAISE EXCEPTION 'the index moved on' USING ERRCODE = 'AU010';
    END IF;
    IF p_number IS NOT NULL THEN
        PERFORM audit.put_segment(p_log_id, p_number, p_first_at, p_last_at, p_events, p_field, p_value, p_count, p_positions, p_tallied);
    END IF;
END
$index$;

-- Drop bodies, disclosures and projections of the ranges that the `drop` entry names. Control entries within are skipped.
CREATE FUNCTION audit.drop_entries(
    p_log_id bigint, p_entry jsonb,
    p_generation bigint, p_segments integer, p_number integer, p_first_at timestamptz, p_last_at timestamptz, p_events integer,
    p_field text[], p_value text[], p_count integer[], p_positions bytea[], p_tallied text[]
) RETURNS TABLE (seq bigint, epoch integer, recorded_at timestamptz, hash bytea, prev_hash bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $drop$
#variable_conflict use_column
DECLARE
    -- json, which keeps numbers as they are written: a verifier reads no 1e3 as a seq.
    v_details json := (p_entry ->> 'body')::json -> 'details';
    v_from bigint[];
    v_to bigint[];
    v_dropped bigint;
BEGIN
    IF json_typeof(v_details -> 'ranges') IS DISTINCT FROM 'array' OR EXISTS (
        SELECT FROM json_array_elements(v_details -> 'ranges') AS r(item)
        WHERE CASE WHEN json_typeof(r.item) = 'array' THEN json_array_length(r.item) <> 2
            OR (r.item -> 0)::text !~ '^\d{1,18}$' OR (r.item -> 1)::text !~ '^\d{1,18}$' ELSE true END
    ) THEN
        RAISE EXCEPTION 'a range is two seqs' USING ERRCODE = 'AU012';
    END IF;
    SELECT array_agg((r.item ->> 0)::bigint ORDER BY r.ord), array_agg((r.item ->> 1)::bigint ORDER BY r.ord)
        INTO v_from, v_to
        FROM json_array_elements(v_details -> 'ranges') WITH ORDINALITY AS r(item, ord);
    IF v_from IS NULL OR cardinality(v_from) > 10000 OR EXISTS (
        SELECT FROM unnest(v_from, v_to) WITH ORDINALITY AS r(low, high, ord)
        WHERE r.low >= r.high OR r.ord > 1 AND r.low < v_to[r.ord - 1]
            OR r.high > (SELECT l.size FROM audit.log AS l WHERE l.log_id = p_log_id)
    ) THEN
        RAISE EXCEPTION 'ranges are sorted, disjoint, not empty and within the log' USING ERRCODE = 'AU012';
    END IF;
    PERFORM audit.forget_index(p_log_id, p_generation, p_segments, p_number, p_first_at, p_last_at, p_events,
        p_field, p_value, p_count, p_positions, p_tallied);
    PERFORM audit.require_no_hold(p_log_id, v_from, v_to);
    UPDATE audit.entry AS e SET
        body = NULL, d_actor = NULL, d_actor_email = NULL, d_on_behalf_of = NULL, d_ip = NULL, d_context = NULL, d_target = NULL,
        d_text = NULL, d_metadata = NULL, d_changes = NULL, id = NULL, occurred_at = NULL, source_seq = NULL, action = NULL, verb = NULL,
        category = NULL, outcome = NULL, actor_type = NULL, actor_id = NULL, actor_name = NULL, actor_email = NULL, actor_role = NULL,
        actor_keys = NULL, target_type = NULL, target_id = NULL, target_name = NULL, server_id = NULL, ip = NULL, session = NULL,
        request_id = NULL, source_id = NULL, paths = NULL, search = NULL
        FROM unnest(v_from, v_to) AS r(low, high)
        WHERE e.log_id = p_log_id AND e.seq >= r.low AND e.seq < r.high AND e.kind = 'event' AND e.body IS NOT NULL;
    GET DIAGNOSTICS v_dropped = ROW_COUNT;
    IF v_dropped IS DISTINCT FROM (v_details ->> 'count')::bigint THEN
        RAISE EXCEPTION 'the entry names another number of entries' USING ERRCODE = 'AU012';
    END IF;
    RETURN QUERY SELECT * FROM audit.append_control(p_log_id, 'drop', p_entry);
END
$drop$;

-- Erase the disclosures that the `erase` entry names, with the projections made of them, and what would confirm a guess in receipts.
-- actor_keys, paths and search hold parts of several groups: what is left of them comes in arrays, one element for each seq.
CREATE FUNCTION audit.erase_disclosures(
    p_log_id bigint, p_entry jsonb, p_seq bigint[], p_actor_keys text[], p_paths text[], p_search text[],
    p_generation bigint, p_segments integer, p_number integer, p_first_at timestamptz, p_last_at timestamptz, p_events integer,
    p_field text[], p_value text[], p_count integer[], p_positions bytea[], p_tallied text[]
) RETURNS TABLE (seq bigint, epoch integer, recorded_at timestamptz, hash bytea, prev_hash bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $erase$
#variable_conflict use_column
DECLARE
    v_items json := (p_entry ->> 'body')::json -> 'details' -> 'items'; -- json, as for a drop
    v_erased bigint;
BEGIN
    IF json_typeof(v_items) IS DISTINCT FROM 'array' OR json_array_length(v_items) NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'an erase entry names 1 to 10,000 disclosures' USING ERRCODE = 'AU012';
    END IF;
    IF EXISTS (
        SELECT FROM json_array_elements(v_items) AS i(item)
        WHERE CASE WHEN json_typeof(i.item) = 'array' THEN json_array_length(i.item) <> 3 OR (i.item -> 0)::text !~ '^\d{1,18}$'
            OR json_typeof(i.item -> 1) <> 'string' OR (i.item -> 2)::text !~ '^"[0-9a-f]{64}"$' ELSE true END
    ) OR json_array_length(v_items) <> (SELECT count(DISTINCT (i.item ->> 0, i.item ->> 1)) FROM json_array_elements(v_items) AS i(item)) THEN
        RAISE EXCEPTION 'an item is a seq, a group and its commitment, each named once' USING ERRCODE = 'AU012';
    END IF;
    PERFORM audit.forget_index(p_log_id, p_generation, p_segments, p_number, p_first_at, p_last_at, p_events,
        p_field, p_value, p_count, p_positions, p_tallied);
    PERFORM audit.require_no_hold(p_log_id, p_seq, ARRAY(SELECT s.seq + 1 FROM unnest(p_seq) WITH ORDINALITY AS s(seq, ord) ORDER BY s.ord));
    WITH item AS (
        SELECT (i.item ->> 0)::bigint AS seq, array_agg(i.item ->> 1) AS groups, jsonb_object_agg(i.item ->> 1, i.item ->> 2) AS sd
        FROM json_array_elements(v_items) AS i(item) GROUP BY 1
    ), part AS (
        SELECT * FROM unnest(p_seq, p_actor_keys, p_paths, p_search) AS x(seq, actor_keys, paths, search)
    ), erased AS (
        UPDATE audit.entry AS e SET
            d_actor = CASE WHEN 'actor' = ANY (item.groups) THEN NULL ELSE e.d_actor END,
            actor_id = CASE WHEN 'actor' = ANY (item.groups) THEN NULL ELSE e.actor_id END,
            actor_name = CASE WHEN 'actor' = ANY (item.groups) THEN NULL ELSE e.actor_name END,
            actor_role = CASE WHEN 'actor' = ANY (item.groups) THEN NULL ELSE e.actor_role END,
            d_actor_email = CASE WHEN 'actor_email' = ANY (item.groups) THEN NULL ELSE e.d_actor_email END,
            actor_email = CASE WHEN 'actor_email' = ANY (item.groups) THEN NULL ELSE e.actor_email END,
            d_on_behalf_of = CASE WHEN 'on_behalf_of' = ANY (item.groups) THEN NULL ELSE e.d_on_behalf_of END,
            d_ip = CASE WHEN 'ip' = ANY (item.groups) THEN NULL ELSE e.d_ip END,
            ip = CASE WHEN 'ip' = ANY (item.groups) THEN NULL ELSE e.ip END,
            d_context = CASE WHEN 'context' = ANY (item.groups) THEN NULL ELSE e.d_context END,
            session = CASE WHEN 'context' = ANY (item.groups) THEN NULL ELSE e.session END,
            request_id = CASE WHEN 'context' = ANY (item.groups) THEN NULL ELSE e.request_id END,
            d_target = CASE WHEN 'target' = ANY (item.groups) THEN NULL ELSE e.d_target END,
            target_id = CASE WHEN 'target' = ANY (item.groups) THEN NULL ELSE e.target_id END,
            target_name = CASE WHEN 'target' = ANY (item.groups) THEN NULL ELSE e.target_name END,
            d_text = CASE WHEN 'text' = ANY (item.groups) THEN NULL ELSE e.d_text END,
            d_metadata = CASE WHEN 'metadata' = ANY (item.groups) THEN NULL ELSE e.d_metadata END,
            d_changes = CASE WHEN 'changes' = ANY (item.groups) THEN NULL ELSE e.d_changes END,
            actor_keys = part.actor_keys::text[], paths = part.paths::text[], search = part.search
        FROM item JOIN part ON part.seq = item.seq
        WHERE e.log_id = p_log_id AND e.seq = item.seq AND e.body IS NOT NULL AND (e.body::jsonb -> 'sd') @> item.sd
        RETURNING e.id
    ), receipts AS (
        UPDATE audit.receipt AS r SET salt = NULL, fingerprint = NULL FROM erased WHERE r.log_id = p_log_id AND r.id = erased.id
    )
    SELECT count(*) INTO v_erased FROM erased;
    IF v_erased IS DISTINCT FROM cardinality(p_seq)::bigint
        OR v_erased IS DISTINCT FROM (SELECT count(DISTINCT i.item ->> 0) FROM json_array_elements(v_items) AS i(item)) THEN
        RAISE EXCEPTION 'the entry names disclosures that are not there' USING ERRCODE = 'AU012';
    END IF;
    RETURN QUERY SELECT * FROM audit.append_control(p_log_id, 'erase', p_entry);
END
$erase$;

-- Record the cut that the `prune` entry names: a signed checkpoint's size, all events below it dropped. The rows go by delete_pruned.
CREATE FUNCTION audit.prune_log(p_log_id bigint, p_entry jsonb)
RETURNS TABLE (seq bigint, epoch integer, recorded_at timestamptz, hash bytea, prev_hash bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $prune$
#variable_conflict use_column
DECLARE
    v_details jsonb := (p_entry ->> 'body')::jsonb -> 'details';
    v_cut bigint := (v_details ->> 'cut')::bigint;
BEGIN
    PERFORM audit.raise_generation(p_log_id, NULL);
    PERFORM audit.require_no_hold(p_log_id, ARRAY[0::bigint], ARRAY[v_cut]);
    PERFORM FROM audit.checkpoint AS c WHERE c.log_id = p_log_id AND c.size = v_cut AND c.note = v_details ->> 'checkpoint';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such checkpoint was signed' USING ERRCODE = 'AU012';
    END IF;
    IF EXISTS (SELECT FROM audit.entry AS e WHERE e.log_id = p_log_id AND e.seq < v_cut AND e.kind = 'event' AND e.body IS NOT NULL) THEN
        RAISE EXCEPTION 'events below the cut still have bodies' USING ERRCODE = 'AU011';
    END IF;
    RETURN QUERY SELECT * FROM audit.append_control(p_log_id, 'prune', p_entry);
    UPDATE audit.log AS l SET pruned_before = v_cut WHERE l.log_id = p_log_id;
END
$prune$;

-- Delete up to `p_limit` entries below the cut, oldest first; how many are left below it is asked by calling again until it says 0.
CREATE FUNCTION audit.delete_pruned(p_log_id bigint, p_limit integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $delete$
DECLARE
    v_cut bigint;
    v_first bigint;
    v_deleted bigint;
BEGIN
    SELECT l.pruned_before INTO v_cut FROM audit.log AS l WHERE l.log_id = p_log_id;
    -- No further than the last `prune` entry says: a head row that somebody edited must not make us destroy entries. NULL without one.
    SELECT least(v_cut, (e.body::jsonb -> 'details' ->> 'cut')::bigint) INTO v_cut FROM audit.entry AS e
        WHERE e.log_id = p_log_id AND e.kind = 'prune' AND e.kind <> 'event' ORDER BY e.seq DESC LIMIT 1;
    SELECT min(e.seq) INTO v_first FROM audit.entry AS e WHERE e.log_id = p_log_id AND e.seq < v_cut;
    DELETE FROM audit.entry AS e WHERE e.log_id = p_log_id AND e.seq >= v_first AND e.seq < least(v_first + p_limit, v_cut);
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    RETURN v_deleted;
END
$delete$;

CREATE FUNCTION audit.set_hold(p_log_id bigint, p_entry jsonb)
RETURNS TABLE (seq bigint, epoch integer, recorded_at timestamptz, hash bytea, prev_hash bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $set$
DECLARE
    v_body jsonb := (p_entry ->> 'body')::jsonb;
BEGIN
    IF v_body -> 'details' ->> 'state' IS DISTINCT FROM 'set' THEN
        RAISE EXCEPTION 'not a hold that is set' USING ERRCODE = 'AU012';
    END IF;
    -- Waits for a drop that has looked for holds already; one that begins later finds this hold.
    PERFORM audit.raise_generation(p_log_id, NULL);
    INSERT INTO audit.hold (log_id, hold_id, from_seq, to_seq, target_type, target_id, reason)
        VALUES (p_log_id, v_body -> 'details' ->> 'hold', (v_body #>> '{details,range,0}')::bigint, (v_body #>> '{details,range,1}')::bigint,
            p_entry ->> 'target_type', p_entry ->> 'target_id', v_body ->> 'reason');
    RETURN QUERY SELECT * FROM audit.append_control(p_log_id, 'hold', p_entry);
END
$set$;

CREATE FUNCTION audit.lift_hold(p_log_id bigint, p_entry jsonb)
RETURNS TABLE (seq bigint, epoch integer, recorded_at timestamptz, hash bytea, prev_hash bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $lift$
DECLARE
    v_details jsonb := (p_entry ->> 'body')::jsonb -> 'details';
BEGIN
    DELETE FROM audit.hold AS h
        WHERE h.log_id = p_log_id AND h.hold_id = v_details ->> 'hold' AND v_details ->> 'state' = 'lifted';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such hold is set' USING ERRCODE = 'AU012';
    END IF;
    RETURN QUERY SELECT * FROM audit.append_control(p_log_id, 'hold', p_entry);
END
$lift$;

REVOKE ALL ON FUNCTION audit.require_no_hold, audit.forget_index, audit.drop_entries, audit.erase_disclosures, audit.prune_log,
    audit.delete_pruned, audit.set_hold, audit.lift_hold FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.drop_entries, audit.erase_disclosures, audit.prune_log, audit.delete_pruned, audit.set_hold,
    audit.lift_hold TO audit_retention;

SET ROLE audit_resumer;

-- After a restore that lost a signed tail: the epoch goes up by one, and the `resume` entry is its first.
CREATE FUNCTION audit.resume_log(p_log_id bigint, p_holder text, p_entry jsonb)
RETURNS TABLE (seq bigint, epoch integer, recorded_at timestamptz, hash bytea, prev_hash bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $resume$
BEGIN
    PERFORM audit.require_signer(p_holder);
    UPDATE audit.log AS l SET epoch = l.epoch + 1 WHERE l.log_id = p_log_id;
    RETURN QUERY SELECT * FROM audit.append_control(p_log_id, 'resume', p_entry);
END
$resume$;
REVOKE ALL ON FUNCTION audit.resume_log FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.resume_log TO audit_signing;

SET ROLE audit_owner;

-- CREATE is taken back: from here on these roles only own what they own.
REVOKE CREATE ON SCHEMA audit FROM audit_eraser, audit_resumer;
REVOKE ALL ON audit.forgetting, audit.checkpoint, audit.tile, audit.signer, audit.hold, audit.retention_policy, audit.request FROM PUBLIC;
GRANT USAGE ON SCHEMA audit TO audit_signing, audit_retention;
GRANT SELECT ON audit.installation, audit.tenant, audit.alembic_version TO audit_signing, audit_retention;
GRANT SELECT ON audit.bound_entry, audit.bound_log, audit.bound_checkpoint, audit.bound_tile TO audit_signing;
GRANT SELECT ON audit.bound_entry, audit.bound_log, audit.bound_receipt, audit.bound_segment, audit.bound_posting, audit.bound_tally,
    audit.bound_checkpoint, audit.bound_tile, audit.bound_hold, audit.bound_retention_policy, audit.bound_request,
    audit.bound_forgetting TO audit_retention;
GRANT SELECT ON audit.bound_checkpoint, audit.bound_tile, audit.bound_hold, audit.bound_retention_policy, audit.bound_request,
    audit.bound_forgetting TO audit_serving;
GRANT SELECT, INSERT, UPDATE, DELETE ON audit.retention_policy TO audit_retention;
GRANT SELECT ON audit.request TO audit_retention;
GRANT UPDATE (status, finished_at, details, result) ON audit.request TO audit_retention;
GRANT EXECUTE ON FUNCTION audit.add_segment, audit.add_request TO audit_serving;
GRANT EXECUTE ON FUNCTION audit.first_recorded TO audit_retention;
GRANT EXECUTE ON FUNCTION audit.take_signer_lease, audit.release_signer_lease, audit.publish_checkpoint, audit.store_tiles,
    audit.record_signer, audit.change_signing_key TO audit_signing;
