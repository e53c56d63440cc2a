#!/bin/sh
# Two roles of PostgreSQL with a password each: `firstread_reader` for people and programs that look at the views, and
# `firstread_service` for the processes that receive, score and send. What each may do, `firstread migrate` grants every
# time that it runs, as the owner. May run again: passwords are set anew, nothing else changes.
#
# The image of PostgreSQL runs it when the database is made. By hand, as whoever may make roles:
#   POSTGRES_USER=postgres POSTGRES_DB=firstread READER_PASSWORD=... SERVICE_PASSWORD=... deploy/postgres/10-roles.sh
set -eu
psql -v ON_ERROR_STOP=1 -v reader="$READER_PASSWORD" -v service="$SERVICE_PASSWORD" \
    --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
SELECT 'CREATE ROLE ' || name || ' LOGIN'
FROM unnest(ARRAY['firstread_reader', 'firstread_service']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE firstread_reader NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'reader';
ALTER ROLE firstread_service NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'service';
ALTER ROLE firstread_reader SET default_transaction_read_only = on;
ALTER ROLE firstread_reader SET statement_timeout = '30s';
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO firstread_reader, firstread_service;
SQL
