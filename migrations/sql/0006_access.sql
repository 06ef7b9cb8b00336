-- Who may see what (decision 0019): limits of API keys, two live keys for each client, viewer tokens, and tenants made over HTTP.

-- `limits`: what the key is limited to, as core/key_limits.py spells it; {} for nothing. `client`: whose key it is, for rotation.
ALTER TABLE audit.api_key
    ADD COLUMN client text COLLATE "C",
    ADD COLUMN limits jsonb NOT NULL DEFAULT '{}';

CREATE INDEX api_key_client ON audit.api_key (log_id, client) WHERE client IS NOT NULL AND revoked_at IS NULL;

-- At most two live keys for each client, whoever makes them at the same time: the third waits for the tenant's row, and then counts. In a
-- statement of its own, after the lock, so that it sees what was committed while it waited.
CREATE FUNCTION audit.guard_key_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $guard$
BEGIN
    IF NEW.client IS NULL THEN
        RETURN NEW;
    END IF;
    PERFORM FROM audit.tenant AS t WHERE t.log_id = NEW.log_id FOR UPDATE;
    IF (SELECT count(*) FROM audit.api_key AS k
        WHERE k.log_id = NEW.log_id AND k.client = NEW.client AND k.revoked_at IS NULL
            AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())) >= 2 THEN
        RAISE EXCEPTION 'the client has two live keys' USING ERRCODE = 'AU020';
    END IF;
    RETURN NEW;
END
$guard$;

-- A revoked key stays revoked, whatever a worker does. Only the owner, at a start, may take AUDIT_BOOTSTRAP_KEY back into use.
CREATE FUNCTION audit.guard_revocation() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $guard$
BEGIN
    IF current_user = 'audit_serving' AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
        RAISE EXCEPTION 'what is revoked stays revoked' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$guard$;

CREATE TRIGGER api_key_two_live BEFORE INSERT ON audit.api_key FOR EACH ROW EXECUTE FUNCTION audit.guard_key_insert();
CREATE TRIGGER api_key_revoked BEFORE UPDATE ON audit.api_key FOR EACH ROW
    WHEN (OLD.revoked_at IS NOT NULL) EXECUTE FUNCTION audit.guard_revocation();

-- Viewer tokens: what a panel's backend hands to one person looking. `key_id`: the API key that issued it, and ends it when it ends.
-- `viewer`: keyed hash of what the backend calls that person.
CREATE TABLE audit.viewer_token (
    token_id text COLLATE "C" NOT NULL,
    log_id bigint NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    secret_hash bytea NOT NULL,
    scopes text[] NOT NULL,
    limits jsonb NOT NULL,
    viewer text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    CONSTRAINT viewer_token_pkey PRIMARY KEY (token_id),
    CONSTRAINT viewer_token_hash UNIQUE (secret_hash),
    CONSTRAINT viewer_token_key FOREIGN KEY (key_id) REFERENCES audit.api_key (key_id),
    CONSTRAINT viewer_token_time CHECK (isfinite(expires_at))
);

CREATE INDEX viewer_token_expiry ON audit.viewer_token (expires_at);
CREATE INDEX viewer_token_log ON audit.viewer_token (log_id, expires_at);

-- A token lasts an hour at most, from when it was issued or renewed; it is renewed while it is alive, or not at all; and what is revoked
-- stays revoked. Here, so that no worker can do more.
CREATE FUNCTION audit.guard_viewer_token() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $guard$
BEGIN
    IF NEW.expires_at IS DISTINCT FROM OLD.expires_at AND NEW.expires_at > clock_timestamp() + interval '1 hour' THEN
        RAISE EXCEPTION 'a viewer token lasts an hour at most' USING ERRCODE = 'check_violation';
    END IF;
    IF TG_OP = 'INSERT' THEN
        RETURN NEW;
    END IF;
    IF OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
        RAISE EXCEPTION 'what is revoked stays revoked' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF (OLD.revoked_at IS NOT NULL OR OLD.expires_at <= clock_timestamp()) AND NEW.expires_at > OLD.expires_at THEN
        RAISE EXCEPTION 'a token that has ended is not renewed' USING ERRCODE = 'AU021';
    END IF;
    RETURN NEW;
END
$guard$;

CREATE TRIGGER viewer_token_guard BEFORE INSERT OR UPDATE ON audit.viewer_token FOR EACH ROW EXECUTE FUNCTION audit.guard_viewer_token();

-- Remove tokens that ended over an hour ago, at most `p_limit`; how many. Issuing one calls it for more than one, so there are never many
-- more rows than live tokens. The workers cannot delete any other.
CREATE FUNCTION audit.sweep_viewer_tokens(p_limit integer) RETURNS integer LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $sweep$
DECLARE
    v_swept integer;
BEGIN
    DELETE FROM audit.viewer_token AS v USING (
        SELECT o.token_id FROM audit.viewer_token AS o WHERE o.expires_at < clock_timestamp() - interval '1 hour'
        ORDER BY o.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ) AS old WHERE v.token_id = old.token_id;
    GET DIAGNOSTICS v_swept = ROW_COUNT;
    RETURN v_swept;
END
$sweep$;

-- A tenant with an empty log. The workers have no INSERT on either table: which log a tenant gets is not theirs to choose.
CREATE FUNCTION audit.create_tenant(p_name text, OUT log_id bigint, OUT log_key text, OUT created_at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $tenant$
DECLARE
    v_random CONSTANT bytea := sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
    v_service_name text;
BEGIN
    SELECT i.service_name INTO STRICT v_service_name FROM audit.installation AS i;
    log_key := encode(substr(v_random, 1, 16), 'hex');
    log_id := ('x' || encode(substr(v_random, 17, 8), 'hex'))::bit(64)::bigint & 9223372036854775807;
    created_at := clock_timestamp();
    INSERT INTO audit.tenant AS t (name, log_id, log_key, created_at) VALUES (p_name, log_id, log_key, created_at);
    INSERT INTO audit.log AS l (log_id, service_name, log_key, last_hash) VALUES (log_id, v_service_name, log_key,
        sha256(convert_to(format(E'audit-service/genesis/v1\n%s/t/%s/1\n', v_service_name, log_key), 'UTF8')));
END
$tenant$;

REVOKE ALL ON audit.viewer_token FROM PUBLIC;
REVOKE ALL ON FUNCTION audit.guard_key_insert, audit.guard_revocation, audit.guard_viewer_token,
    audit.sweep_viewer_tokens, audit.create_tenant FROM PUBLIC;
GRANT SELECT, INSERT ON audit.viewer_token TO audit_serving;
GRANT UPDATE (expires_at, revoked_at) ON audit.viewer_token TO audit_serving;
GRANT EXECUTE ON FUNCTION audit.sweep_viewer_tokens, audit.create_tenant TO audit_serving;
