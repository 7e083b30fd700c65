-- The two roles of a sidecar's database, and the database. Once, as a superuser (or a role with createrole and
-- createdb), with psql:
--
--   psql -v owner_password=… -v sidecar_password=… -f deploy/postgres/roles.sql
--
-- plugin_state_owner owns the schema and migrates it: `plugin-state migrate`, `plugin-state plugin add`.
-- plugin_state is what sidecars are: it reads and writes rows, and can't change, drop or truncate a table. Here it gets
-- the right to connect and nothing else. The rest is granted to it table by table and function by function, by
-- `plugin-state migrate` with both URLs, at each upgrade anew; `plugin-state grants plugin_state` prints it.
\set ON_ERROR_STOP on
create role plugin_state_owner login password :'owner_password';
create role plugin_state login password :'sidecar_password';
create database plugin_state owner plugin_state_owner encoding 'UTF8' template template0;
revoke all on database plugin_state from public;
grant connect on database plugin_state to plugin_state;
\connect plugin_state
revoke all on schema public from public;
