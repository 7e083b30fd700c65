-- List reads keys in byte order. Where the host's table has another collation (any but "C"), its
-- unique index can't give that order, and the sidecar adds an index that does.

-- Up Migration

do $$
begin
  if exists (
    select from pg_attribute a join pg_collation c on c.oid = a.attcollation
     where a.attrelid = 'state_schema.plugin_state'::regclass and a.attname = 'state_key'
       and c.collname not in ('C', 'POSIX')) then
    create index if not exists plugin_sidecar_key_order_idx
      on state_schema.plugin_state (plugin_id, scope_kind, scope_id, namespace, state_key collate "C");
  end if;
end $$;

-- Down Migration

drop index if exists state_schema.plugin_sidecar_key_order_idx;
