/** The host's tables as its own migrations make them: in the database's collation, with a plugin `demo`. */
export const hostTables = `
  create table plugins (
    id uuid primary key default gen_random_uuid(), plugin_key text not null,
    package_name text not null, package_path text, version text not null,
    api_version integer not null default 1, categories jsonb not null default '[]',
    manifest_json jsonb not null, status text not null default 'installed', install_order integer,
    last_error text, installed_at timestamptz not null default now(),
    updated_at timestamptz not null default now());
  create unique index plugins_plugin_key_idx on plugins (plugin_key);
  create table plugin_state (
    id uuid primary key default gen_random_uuid(), plugin_id uuid not null,
    scope_kind text not null, scope_id text, namespace text default 'default' not null,
    state_key text not null, value_json jsonb not null, updated_at timestamptz default now() not null,
    constraint plugin_state_unique_entry_idx
      unique nulls not distinct (plugin_id, scope_kind, scope_id, namespace, state_key));
  alter table plugin_state add constraint plugin_state_plugin_id_plugins_id_fk
    foreign key (plugin_id) references plugins(id) on delete cascade on update no action;
  create index plugin_state_plugin_scope_idx on plugin_state (plugin_id, scope_kind);
  insert into plugins (plugin_key, package_name, version, manifest_json)
    values ('demo', 'demo', '1.0.0', '{"capabilities": []}')`;
