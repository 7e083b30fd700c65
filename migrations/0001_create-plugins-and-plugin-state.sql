-- The two tables a host and the sidecar share, in the shape the host's own schema gives them.
--
-- In the sidecar's own schema they are made here. In another schema (`--state-schema public`) they
-- belong to the host, whose migrations refuse a schema that has them already: there they must
-- exist, and only the columns below are added. `state_schema` stands for that schema throughout these
-- files: src/postgres/migrate.ts puts the quoted name in its place.

-- Up Migration

do $$
begin
  if 'state_schema' <> '"plugin_sidecar"'
     and (to_regclass('state_schema.plugins') is null
          or to_regclass('state_schema.plugin_state') is null) then
    raise exception 'schema % has no tables plugins and plugin_state', 'state_schema'
      using hint = 'Let the host create them first, or leave --state-schema at its default.',
            errcode = 'undefined_table';
  end if;
end $$;

create table if not exists state_schema.plugins (
  id            uuid primary key default gen_random_uuid(),
  plugin_key    text not null,
  package_name  text not null,
  package_path  text,
  version       text not null,
  api_version   integer not null default 1,
  categories    jsonb not null default '[]'::jsonb,
  manifest_json jsonb not null,
  status        text not null default 'installed',
  install_order integer,
  last_error    text,
  installed_at  timestamptz not null default now(),
  updated_at    timestamptz not null default now()
);
create unique index if not exists plugins_plugin_key_idx on state_schema.plugins (plugin_key);
create index if not exists plugins_status_idx on state_schema.plugins (status);

-- fillfactor: an update finds room in its own page and touches no index (HOT).
-- collate "C": the unique index has keys in byte order, which is List's order.
create table if not exists state_schema.plugin_state (
  id         uuid primary key default gen_random_uuid(),
  plugin_id  uuid not null,
  scope_kind text collate "C" not null,
  scope_id   text collate "C",
  namespace  text collate "C" not null default 'default',
  state_key  text collate "C" not null,
  value_json jsonb not null,
  updated_at timestamptz not null default now(),
  constraint plugin_state_unique_entry_idx
    unique nulls not distinct (plugin_id, scope_kind, scope_id, namespace, state_key),
  constraint plugin_state_plugin_id_plugins_id_fk
    foreign key (plugin_id) references state_schema.plugins (id) on delete cascade
) with (fillfactor = 80);
create index if not exists plugin_state_plugin_scope_idx
  on state_schema.plugin_state (plugin_id, scope_kind);

-- A database restored from the host's own dump has the constraint without NULLS NOT DISTINCT:
-- every write to the instance scope would then add a row, and reads would return the oldest.
do $$
begin
  if not exists (
    select from pg_constraint c join pg_index i on i.indexrelid = c.conindid
     where c.conrelid = 'state_schema.plugin_state'::regclass
       and c.conname = 'plugin_state_unique_entry_idx' and i.indnullsnotdistinct) then
    raise exception 'constraint plugin_state_unique_entry_idx of %.plugin_state lacks NULLS NOT DISTINCT',
      'state_schema'
      using hint = 'Remove duplicate rows of the instance scope, then drop the constraint and add it as '
                   'unique nulls not distinct (plugin_id, scope_kind, scope_id, namespace, state_key).',
            errcode = 'object_not_in_prerequisite_state';
  end if;
end $$;

-- The sidecar's own columns. A host that names its columns in inserts and selects doesn't notice.
-- created_at stays null for rows that were there before: their updated_at is the best that is known.
-- size_bytes is what entry_bytes says, kept to be quick; null where nobody has asked yet.
alter table state_schema.plugin_state
  add column if not exists revision bigint not null default 0,
  add column if not exists created_at timestamptz,
  add column if not exists expires_at timestamptz,
  add column if not exists size_bytes bigint;
alter table state_schema.plugin_state alter column created_at set default now();

-- Which schema the state is in: a sidecar started with another --state-schema refuses to serve.
create table plugin_sidecar.installation (
  singleton boolean primary key default true check (singleton),
  schema_of_state text not null
);
insert into plugin_sidecar.installation (schema_of_state) values (trim(both '"' from 'state_schema'));

-- Down Migration

drop table plugin_sidecar.installation;
alter table state_schema.plugin_state drop column revision, drop column created_at,
  drop column expires_at, drop column size_bytes;
do $$
begin
  if 'state_schema' = '"plugin_sidecar"' then
    drop table plugin_sidecar.plugin_state, plugin_sidecar.plugins;
  end if;
end $$;
