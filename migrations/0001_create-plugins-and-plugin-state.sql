-- The two tables that a host and the sidecar share, in the shape that the host's own schema gives them.
--
-- In the sidecar's own schema they are made here. In another schema (`--state-schema public`) they belong to the
-- host, whose migrations refuse a schema that has them already: there they must exist. `state_schema` stands for
-- that schema throughout these files: src/postgres/migrate.ts puts the quoted name in its place.
--
-- What the sidecar adds to plugin_state (columns, triggers, indexes) isn't made by migrations but by
-- src/postgres/attach/, which finds out what is missing: the host may restore its tables from a dump of before.

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

-- Nothing is added to a host's tables that they lack: these are for tables that were made here.
do $$
begin
  if 'state_schema' = '"plugin_sidecar"' then
    create unique index plugins_plugin_key_idx on state_schema.plugins (plugin_key);
    create index plugins_status_idx on state_schema.plugins (status);
  end if;
end $$;

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

do $$
begin
  if 'state_schema' = '"plugin_sidecar"' then
    create index plugin_state_plugin_scope_idx on state_schema.plugin_state (plugin_id, scope_kind);
  end if;
end $$;

-- Which schema the state is in: a sidecar started with another --state-schema refuses to serve. And which
-- attachment to its tables this is, with the time when that was complete; see src/postgres/attach/.
create table plugin_sidecar.installation (
  singleton       boolean primary key default true check (singleton),
  schema_of_state text not null,
  attachment      uuid not null default gen_random_uuid(),
  attached_at     timestamptz
);
insert into plugin_sidecar.installation (schema_of_state) values (trim(both '"' from 'state_schema'));

-- Down Migration

drop table plugin_sidecar.installation;
do $$
begin
  if 'state_schema' = '"plugin_sidecar"' then
    drop table plugin_sidecar.plugin_state, plugin_sidecar.plugins;
  end if;
end $$;
