-- Checkpoints whose times always rise, and holds of what their entry says. Runs as audit_owner.

-- The checkpoint signed last is the one with the latest time, so a clock that was set back must not hide a new one behind an old one.
CREATE OR REPLACE FUNCTION audit.publish_checkpoint(p_log_id bigint, p_holder text, p_size bigint, p_epoch integer, p_note text)
RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $publish$
DECLARE
    v_at timestamptz;
BEGIN
    PERFORM audit.require_signer(p_holder);
    IF NOT EXISTS (SELECT FROM audit.log AS l WHERE l.log_id = p_log_id AND l.size >= p_size AND l.epoch >= p_epoch) THEN
        RAISE EXCEPTION 'the log is smaller than its checkpoint' USING ERRCODE = 'AU012';
    END IF;
    SELECT greatest(clock_timestamp(), max(c.signed_at) + interval '1 microsecond') INTO v_at
        FROM audit.checkpoint AS c WHERE c.log_id = p_log_id;
    INSERT INTO audit.checkpoint (log_id, size, signed_at, epoch, note) VALUES (p_log_id, p_size, v_at, p_epoch, p_note);
    RETURN v_at;
END
$publish$;

GRANT CREATE ON SCHEMA audit TO audit_eraser; -- only until the end of this script
SET ROLE audit_eraser;

-- What is held is what the sealed entry says: the target's type in its body, its id in the disclosure that the body commits to. The
-- projections that come along with it are for finding, and are not asked.
CREATE OR REPLACE FUNCTION audit.set_hold(p_log_id bigint, p_entry jsonb)
RETURNS TABLE (seq bigint, epoch integer, recorded_at timestamptz, hash bytea, prev_hash bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $set$
DECLARE
    v_body jsonb := (p_entry ->> 'body')::jsonb;
    v_disclosure bytea := decode(p_entry ->> 'd_target', 'hex'); -- 32 bytes of salt, then the value
    v_target jsonb := convert_from(substr(v_disclosure, 33), 'UTF8')::jsonb;
BEGIN
    IF v_body -> 'details' ->> 'state' IS DISTINCT FROM 'set' THEN
        RAISE EXCEPTION 'not a hold that is set' USING ERRCODE = 'AU012';
    END IF;
    IF v_body #>> '{sd,target}' IS DISTINCT FROM
        encode(sha256(convert_to('audit-service/disclosure/v1' || chr(10) || 'target' || chr(10), 'UTF8') || v_disclosure), 'hex') THEN
        RAISE EXCEPTION 'the target is not the one the body commits to' USING ERRCODE = 'AU012';
    END IF;
    -- Waits for a drop that has looked for holds already; one that begins later finds this hold.
    PERFORM audit.raise_generation(p_log_id, NULL);
    INSERT INTO audit.hold (log_id, hold_id, from_seq, to_seq, target_type, target_id, reason)
        VALUES (p_log_id, v_body -> 'details' ->> 'hold', (v_body #>> '{details,range,0}')::bigint, (v_body #>> '{details,range,1}')::bigint,
            v_body ->> 'target_type', v_target ->> 'id', v_body ->> 'reason');
    RETURN QUERY SELECT * FROM audit.append_control(p_log_id, 'hold', p_entry);
END
$set$;

SET ROLE audit_owner;
REVOKE CREATE ON SCHEMA audit FROM audit_eraser;
