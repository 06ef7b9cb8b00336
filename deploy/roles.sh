#!/bin/sh
# Runs once, when the postgres container makes its cluster: the three group roles, and the two logins that use them.
#   audit_migrator  may act as the owner and as what signs and forgets, but never serves: AUDIT_MIGRATION_DATABASE_URL
#   audit_web       may act as audit_serving only: AUDIT_DATABASE_URL
set -eu
owner_password=$(cat /run/secrets/owner)
serving_password=$(cat /run/secrets/serving)
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --file /docker-entrypoint-initdb.d/roles.sql.txt
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    -v owner_password="$owner_password" -v serving_password="$serving_password" <<'SQL'
CREATE ROLE audit_migrator LOGIN PASSWORD :'owner_password';
CREATE ROLE audit_web LOGIN PASSWORD :'serving_password';
GRANT audit_owner, audit_eraser, audit_resumer, audit_signing, audit_retention TO audit_migrator;
GRANT audit_serving TO audit_web;
-- The migrator makes the schema `audit` for audit_owner; nobody else creates anything here.
GRANT CREATE ON DATABASE audit TO audit_migrator;
REVOKE TEMPORARY ON DATABASE audit FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
SQL
