-- The log, its entries, receipts and credentials. Runs as audit_owner, in schema audit (made by env.py).

-- One row for the installation: what must be the same for every worker and every start.
CREATE TABLE audit.installation (
    one boolean NOT NULL DEFAULT true,
    service_name text NOT NULL,
    secret bytea NOT NULL,
    CONSTRAINT installation_pkey PRIMARY KEY (one),
    CONSTRAINT installation_one CHECK (one),
    CONSTRAINT installation_secret CHECK (octet_length(secret) = 32)
);

CREATE TABLE audit.tenant (
    name text NOT NULL,
    log_id bigint NOT NULL,
    log_key text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT tenant_pkey PRIMARY KEY (name),
    CONSTRAINT tenant_log UNIQUE (log_id)
);

-- The head of each tenant's chain: the one row every append locks. No index on what changes, so updates stay on the page (HOT).
CREATE TABLE audit.log (
    log_id bigint NOT NULL,
    service_name text NOT NULL,
    log_key text NOT NULL,
    epoch integer NOT NULL DEFAULT 1,
    size bigint NOT NULL DEFAULT 0,
    last_hash bytea NOT NULL,
    last_recorded_at timestamptz NOT NULL DEFAULT 'epoch',
    frontier bytea NOT NULL DEFAULT '\x',
    CONSTRAINT log_pkey PRIMARY KEY (log_id),
    CONSTRAINT log_key_hex CHECK (log_key ~ '^[0-9a-f]{32}$'),
    CONSTRAINT log_size CHECK (size >= 0 AND epoch >= 1),
    CONSTRAINT log_last_hash CHECK (octet_length(last_hash) = 32),
    CONSTRAINT log_frontier CHECK (octet_length(frontier) = 32 * bit_count(size::bit(64)))
) WITH (fillfactor = 50);

-- Header columns (immutable), then the bytes the header commits to (droppable), then projections for queries.
-- A disclosure is stored as it is hashed: 32 bytes of salt, then the canonical JSON text of the value in UTF-8.
CREATE TABLE audit.entry (
    log_id bigint NOT NULL,
    seq bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    occurred_at timestamptz,
    source_seq bigint,
    epoch integer NOT NULL,
    kind text COLLATE "C" NOT NULL,
    prev_hash bytea NOT NULL,
    body_hash bytea NOT NULL,
    hash bytea NOT NULL,
    body text COLLATE "C",
    d_actor bytea,
    d_actor_email bytea,
    d_on_behalf_of bytea,
    d_ip bytea,
    d_context bytea,
    d_target bytea,
    d_text bytea,
    d_metadata bytea,
    d_changes bytea,
    id text COLLATE "C",
    action text COLLATE "C",
    verb text COLLATE "C",
    category text COLLATE "C",
    outcome text COLLATE "C",
    actor_type text COLLATE "C",
    actor_id text COLLATE "C",
    actor_name text COLLATE "C",
    actor_email text COLLATE "C",
    actor_role text COLLATE "C",
    actor_keys text[] COLLATE "C",
    target_type text COLLATE "C",
    target_id text COLLATE "C",
    target_name text COLLATE "C",
    server_id text COLLATE "C",
    ip inet,
    session text COLLATE "C",
    request_id text COLLATE "C",
    source_id text COLLATE "C",
    paths text[] COLLATE "C",
    search text COLLATE "C",
    CONSTRAINT entry_pkey PRIMARY KEY (log_id, seq),
    CONSTRAINT entry_hashes CHECK (octet_length(prev_hash) = 32 AND octet_length(body_hash) = 32 AND octet_length(hash) = 32),
    CONSTRAINT entry_times CHECK (isfinite(recorded_at) AND isfinite(occurred_at))
);

CREATE INDEX entry_time ON audit.entry (log_id, occurred_at, seq);
CREATE INDEX entry_server ON audit.entry (log_id, server_id, occurred_at, seq);
CREATE INDEX entry_actor ON audit.entry (log_id, actor_id, occurred_at, seq);
CREATE INDEX entry_target ON audit.entry (log_id, target_id, target_type, occurred_at, seq);
CREATE INDEX entry_action ON audit.entry (log_id, action, occurred_at, seq);

-- One row for each id ever accepted, kept or not. Survives pruning; an erasure nulls salt and fingerprint.
CREATE TABLE audit.receipt (
    log_id bigint NOT NULL,
    seq bigint,
    recorded_at timestamptz NOT NULL,
    epoch integer NOT NULL,
    kept boolean NOT NULL,
    id text COLLATE "C" NOT NULL,
    prev_hash bytea,
    hash bytea,
    salt bytea,
    fingerprint bytea,
    ruleset text COLLATE "C" NOT NULL,
    CONSTRAINT receipt_pkey PRIMARY KEY (log_id, id),
    CONSTRAINT receipt_kept CHECK (kept = (seq IS NOT NULL) AND kept = (hash IS NOT NULL) AND kept = (prev_hash IS NOT NULL))
);

CREATE TABLE audit.api_key (
    key_id text COLLATE "C" NOT NULL,
    log_id bigint NOT NULL,
    name text NOT NULL,
    scopes text[] NOT NULL,
    secret_hash bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    CONSTRAINT api_key_pkey PRIMARY KEY (key_id),
    CONSTRAINT api_key_hash UNIQUE (secret_hash)
);

-- Append-only, refused by trigger as well as by privilege. ENABLE ALWAYS: session_replication_role does not switch them off.
-- The test is on current_user, which a SECURITY DEFINER function sets and no session setting can imitate.
CREATE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% on %.% is refused: the log is append-only', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE FUNCTION audit.guard_entry_update() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_old jsonb;
    v_new jsonb;
BEGIN
    IF current_user <> 'audit_eraser' THEN
        RAISE EXCEPTION 'UPDATE on audit.entry is refused: the log is append-only' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF (NEW.log_id, NEW.seq, NEW.recorded_at, NEW.epoch, NEW.kind, NEW.prev_hash, NEW.body_hash, NEW.hash)
        IS DISTINCT FROM (OLD.log_id, OLD.seq, OLD.recorded_at, OLD.epoch, OLD.kind, OLD.prev_hash, OLD.body_hash, OLD.hash) THEN
        RAISE EXCEPTION 'the header of an entry never changes' USING ERRCODE = 'insufficient_privilege';
    END IF;
    v_old := to_jsonb(OLD);
    v_new := to_jsonb(NEW);
    -- actor_keys, paths and search hold parts of several groups, so an erasure rewrites them; all else may only become null.
    IF EXISTS (SELECT 1 FROM jsonb_each(v_new) AS n(column_name, value)
               WHERE n.column_name NOT IN ('actor_keys', 'paths', 'search')
                 AND n.value <> 'null'::jsonb AND n.value IS DISTINCT FROM v_old -> n.column_name) THEN
        RAISE EXCEPTION 'an erasure may only remove values' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION audit.guard_receipt_update() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_user <> 'audit_eraser' OR NEW.salt IS NOT NULL OR NEW.fingerprint IS NOT NULL
        OR (NEW.log_id, NEW.seq, NEW.recorded_at, NEW.epoch, NEW.kept, NEW.id, NEW.prev_hash, NEW.hash, NEW.ruleset)
            IS DISTINCT FROM (OLD.log_id, OLD.seq, OLD.recorded_at, OLD.epoch, OLD.kept, OLD.id, OLD.prev_hash, OLD.hash, OLD.ruleset) THEN
        RAISE EXCEPTION 'UPDATE on audit.receipt is refused: receipts are for ever' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION audit.guard_log_update() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- The epoch is part of the origin. A resume after a restore (DESIGN 3.1) gets a function under a role of its own, let through here.
    IF (NEW.log_id, NEW.service_name, NEW.log_key, NEW.epoch)
        IS DISTINCT FROM (OLD.log_id, OLD.service_name, OLD.log_key, OLD.epoch) THEN
        RAISE EXCEPTION 'the origin of a log never changes' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.size < OLD.size THEN
        RAISE EXCEPTION 'a log never shrinks' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER entry_no_update BEFORE UPDATE ON audit.entry FOR EACH ROW EXECUTE FUNCTION audit.guard_entry_update();
CREATE TRIGGER entry_no_delete BEFORE DELETE ON audit.entry FOR EACH ROW EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER entry_no_truncate BEFORE TRUNCATE ON audit.entry FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER receipt_no_update BEFORE UPDATE ON audit.receipt FOR EACH ROW EXECUTE FUNCTION audit.guard_receipt_update();
CREATE TRIGGER receipt_no_delete BEFORE DELETE ON audit.receipt FOR EACH ROW EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER receipt_no_truncate BEFORE TRUNCATE ON audit.receipt FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER log_forward_only BEFORE UPDATE ON audit.log FOR EACH ROW EXECUTE FUNCTION audit.guard_log_update();
CREATE TRIGGER log_no_delete BEFORE DELETE ON audit.log FOR EACH ROW EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER log_no_truncate BEFORE TRUNCATE ON audit.log FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
ALTER TABLE audit.entry ENABLE ALWAYS TRIGGER entry_no_update;
ALTER TABLE audit.entry ENABLE ALWAYS TRIGGER entry_no_delete;
ALTER TABLE audit.entry ENABLE ALWAYS TRIGGER entry_no_truncate;
ALTER TABLE audit.receipt ENABLE ALWAYS TRIGGER receipt_no_update;
ALTER TABLE audit.receipt ENABLE ALWAYS TRIGGER receipt_no_delete;
ALTER TABLE audit.receipt ENABLE ALWAYS TRIGGER receipt_no_truncate;
ALTER TABLE audit.log ENABLE ALWAYS TRIGGER log_forward_only;
ALTER TABLE audit.log ENABLE ALWAYS TRIGGER log_no_delete;
ALTER TABLE audit.log ENABLE ALWAYS TRIGGER log_no_truncate;

-- The second wall between tenants (decision 0002): the serving role cannot read the tables, only these views, and each shows
-- the one log bound in the transaction. Unset or empty: no row. Not a security barrier, so every index stays usable.
CREATE VIEW audit.bound_entry AS
    SELECT * FROM audit.entry WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;
CREATE VIEW audit.bound_log AS
    SELECT * FROM audit.log WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;
CREATE VIEW audit.bound_receipt AS
    SELECT log_id, seq, recorded_at, epoch, kept, id, prev_hash, hash FROM audit.receipt
    WHERE log_id = NULLIF(current_setting('audit.log_id', true), '')::bigint;
