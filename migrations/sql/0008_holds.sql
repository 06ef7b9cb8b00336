-- Legal holds on a target hold what an erasure about it would take. Runs as audit_owner.

-- Whether the disclosure `target`, 32 bytes of salt and then canonical JSON, names a target as related. One that cannot be read does. By
-- itself, because a block with EXCEPTION is a subtransaction, which is too much for every entry of a log.
CREATE FUNCTION audit.is_related(p_type text, p_id text, p_disclosed bytea) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $related$
BEGIN
    RETURN COALESCE(convert_from(substr(p_disclosed, 33), 'UTF8')::jsonb -> 'related'
        @> jsonb_build_array(jsonb_build_object('type', p_type, 'id', p_id)), false);
EXCEPTION WHEN data_exception THEN
    RETURN true;
END
$related$;
REVOKE ALL ON FUNCTION audit.is_related FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.is_related TO audit_eraser, audit_retention, audit_serving;

-- Whether an entry is about a target: itself, as related, as the server it belongs to, or as what a note of reading names. `p_disclosed` is
-- the disclosure `target`. One that cannot be read but spells the id is held.
CREATE FUNCTION audit.is_about(
    p_type text, p_id text, p_target_type text, p_target_id text, p_server_id text, p_action text, p_disclosed bytea
) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $about$
BEGIN
    IF p_id = p_target_id AND (p_type = p_target_type OR p_action = 'audit.read' AND p_target_type = 'target')
        OR p_type = 'server' AND p_id = p_server_id THEN
        RETURN true;
    END IF;
    IF COALESCE(position(convert_to('"id":' || to_json(p_id)::text, 'UTF8') IN p_disclosed), 0) = 0 THEN
        RETURN false;
    END IF;
    RETURN audit.is_related(p_type, p_id, p_disclosed);
END
$about$;
REVOKE ALL ON FUNCTION audit.is_about FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.is_about TO audit_eraser, audit_retention, audit_serving;

GRANT CREATE ON SCHEMA audit TO audit_eraser; -- only until the end of this script
SET ROLE audit_eraser;

-- Refuse what is under legal hold: entries of ranges, and entries about held targets. A dropped entry is about nothing any more.
CREATE OR REPLACE FUNCTION audit.require_no_hold(p_log_id bigint, p_from bigint[], p_to bigint[]) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $hold$
BEGIN
    IF EXISTS (
        SELECT FROM audit.hold AS h, unnest(p_from, p_to) AS r(low, high)
        WHERE h.log_id = p_log_id AND h.from_seq < r.high AND h.to_seq > r.low
    ) OR EXISTS (
        SELECT FROM unnest(p_from, p_to) AS r(low, high), audit.entry AS e
        WHERE e.log_id = p_log_id AND e.seq >= r.low AND e.seq < r.high AND e.kind = 'event' AND e.body IS NOT NULL
            AND EXISTS (
                SELECT FROM audit.hold AS h
                WHERE h.log_id = p_log_id AND h.target_id IS NOT NULL AND audit.is_about(
                    h.target_type, h.target_id, e.target_type, e.target_id, e.server_id, e.action, e.d_target)
            )
    ) THEN
        RAISE EXCEPTION 'under legal hold' USING ERRCODE = 'AU011';
    END IF;
END
$hold$;

SET ROLE audit_owner;
REVOKE CREATE ON SCHEMA audit FROM audit_eraser;
