-- Who may do what. The serving role appends through the function and reads through the bound views; that is all.
REVOKE ALL ON SCHEMA audit FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA audit FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA audit FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE audit_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

GRANT USAGE ON SCHEMA audit TO audit_serving, audit_eraser;
GRANT EXECUTE ON FUNCTION audit.append_entries TO audit_serving;
GRANT SELECT ON audit.bound_entry, audit.bound_log, audit.bound_receipt TO audit_serving;
GRANT SELECT ON audit.installation, audit.tenant, audit.alembic_version TO audit_serving;
GRANT SELECT, INSERT ON audit.api_key TO audit_serving;
GRANT UPDATE (revoked_at, last_used_at) ON audit.api_key TO audit_serving;

GRANT SELECT ON audit.entry, audit.receipt TO audit_eraser;
GRANT UPDATE (body, d_actor, d_actor_email, d_on_behalf_of, d_ip, d_context, d_target, d_text, d_metadata, d_changes,
    id, occurred_at, source_seq, action, verb, category, outcome, actor_type, actor_id, actor_name, actor_email, actor_role,
    actor_keys, target_type, target_id, target_name, server_id, ip, session, request_id, source_id, paths, search)
    ON audit.entry TO audit_eraser;
GRANT UPDATE (salt, fingerprint) ON audit.receipt TO audit_eraser;
