#!/bin/sh
# Runs once, when the database is made: a role that may look and not touch, for Grafana and for reports.
# Views made later are readable too, since the rights are default ones of the owner.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$READER_PASSWORD" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE ROLE firstread_reader LOGIN PASSWORD :'password';
GRANT USAGE ON SCHEMA public TO firstread_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO firstread_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO firstread_reader;
ALTER ROLE firstread_reader SET default_transaction_read_only = on;
ALTER ROLE firstread_reader SET statement_timeout = '30s';
SQL
