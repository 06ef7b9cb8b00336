-- Roles of audit-service. Idempotent; run before every migration.
-- Where the migrating login may not create roles, a database administrator runs this file once by hand
-- (README, "On your own PostgreSQL") and grants audit_owner, audit_eraser and audit_resumer to that login.
--   audit_owner    NOLOGIN  owns schema, tables and functions; migrations run as this role
--   audit_serving  the web workers: EXECUTE on the append function, SELECT on the bound views, nothing else on entries
--   audit_signing  the signer: stores checkpoints and tiles; no way to change or forget an entry
--   audit_retention  the schedule and the CLI: EXECUTE on what forgets lawfully, each call with its control entry
--   audit_eraser   NOLOGIN  owns the only functions that may null a body, a disclosure or a projection, or delete what was pruned
--   audit_resumer  NOLOGIN  owns the one function that may raise a log's epoch
DO $roles$
DECLARE
    v_role text;
    v_granted boolean;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['audit_owner', 'audit_serving', 'audit_signing', 'audit_retention', 'audit_eraser', 'audit_resumer'] LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = v_role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', v_role);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL; -- another start was quicker
                WHEN insufficient_privilege THEN
                    RAISE EXCEPTION 'role % does not exist and % may not create it', v_role, current_user
                        USING HINT = 'Run migrations/sql/roles.sql as an administrator; see the README, "On your own PostgreSQL".';
            END;
        END IF;
    END LOOP;
    FOREACH v_role IN ARRAY ARRAY['audit_owner', 'audit_eraser', 'audit_resumer', 'audit_serving', 'audit_signing', 'audit_retention'] LOOP
        -- MEMBER means "may SET ROLE to" up to PostgreSQL 15; from 16 on that right is called SET.
        v_granted := pg_catalog.pg_has_role(
            current_user, v_role,
            CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END);
        IF NOT v_granted THEN
            BEGIN
                EXECUTE format('GRANT %I TO CURRENT_USER', v_role);
            EXCEPTION WHEN insufficient_privilege THEN
                -- Where one login does everything its workers act as audit_serving; elsewhere they have a login of their own.
                CONTINUE WHEN v_role IN ('audit_serving', 'audit_signing', 'audit_retention');
                RAISE EXCEPTION '% may not act as %', current_user, v_role
                    USING HINT = 'GRANT audit_owner, audit_eraser, audit_resumer TO the migrating login; see the README, "On your own PostgreSQL".';
            END;
        END IF;
    END LOOP;
    -- Nobody needs temporary tables here, and one could shadow a name. Only the database's owner may revoke; others get a warning.
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END
$roles$;
