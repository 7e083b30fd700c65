import type { TestDatabase } from "../support/database.ts";

/**
 * What attaching will do, until it does: the columns, triggers and tables that doctor looks for, on top of
 * what the migrations make today. To be deleted with its uses when they make it.
 */
export async function attach(
  database: Pick<TestDatabase, "query">,
  stateSchema = "plugin_sidecar",
): Promise<void> {
  const [found] = await database.query<{ migrated: boolean }>(
    "select to_regclass('plugin_sidecar.plugin_revisions') is not null as migrated",
  );
  if (found?.migrated) await database.query(attachSql(`"${stateSchema}".plugin_state`));
}

/** Flags that the command doesn't know yet. */
export const newFlags = / --attach-anew/g;

function attachSql(state: string): string {
  return `
    alter table ${state}
      add column if not exists sidecar_revision bigint, add column if not exists sidecar_write_id bigint,
      add column if not exists sidecar_created_at timestamptz,
      add column if not exists sidecar_expires_at timestamptz, add column if not exists sidecar_bytes bigint;
    create table if not exists plugin_sidecar.external_writes (plugin_id uuid, write_id bigint);
    create table if not exists plugin_sidecar.external_revisions (
      plugin_id uuid, write_id bigint, revision bigint, bytes bigint, primary key (plugin_id, write_id));
    create table if not exists plugin_sidecar.trigger_faults (at timestamptz default now(), problem text);
    create or replace function plugin_sidecar.nothing() returns trigger language plpgsql
      as 'begin return new; end';
    create or replace trigger plugin_sidecar_stamp before insert or update on ${state}
      for each row execute function plugin_sidecar.nothing();
    create or replace trigger plugin_sidecar_log after insert or update or delete on ${state}
      for each row execute function plugin_sidecar.nothing();
    create or replace trigger plugin_sidecar_log_truncate after truncate on ${state}
      for each statement execute function plugin_sidecar.nothing();
    create index if not exists plugin_sidecar_expiry_idx
      on ${state} (plugin_id, sidecar_expires_at) where sidecar_expires_at is not null;
    do $$ begin
      if exists (select from pg_attribute a join pg_collation c on c.oid = a.attcollation
                  where a.attrelid = '${state}'::regclass and a.attname = 'state_key'
                    and c.collname <> 'C') then
        create index if not exists plugin_sidecar_key_order_idx on ${state}
          (plugin_id, scope_kind, scope_id, namespace, state_key collate "C");
        create index if not exists plugin_sidecar_scope_order_idx on ${state}
          (plugin_id, scope_kind, scope_id collate "C", namespace collate "C");
      end if;
    end $$;
    create index if not exists requests_expiry_idx on plugin_sidecar.requests (expires_at);
    delete from plugin_sidecar.trigger_faults;
    delete from plugin_sidecar.external_writes;
    update plugin_sidecar.plugin_revisions set entries = 0, bytes = 0;
    insert into plugin_sidecar.plugin_revisions (plugin_id, revision, entries, bytes)
    select s.plugin_id, 1, count(*), sum(plugin_sidecar.entry_bytes(scope_id, namespace, state_key, value_json))
      from ${state} s join ${state.replace("plugin_state", "plugins")} p on p.id = s.plugin_id group by 1
    on conflict (plugin_id) do update
      set entries = excluded.entries, bytes = excluded.bytes, revision = plugin_revisions.revision + 1;
    update ${state} set sidecar_write_id = null where sidecar_write_id is not null;
    grant select on plugin_sidecar.external_writes, plugin_sidecar.external_revisions,
      plugin_sidecar.trigger_faults to public;`;
}
