-- ListScopes goes from place to place in byte order. Where the host's table has another collation (any
-- but "C"), none of its indexes has that order, and the sidecar adds one that does. It holds no keys, so
-- PostgreSQL keeps each place's name once a page of the index.

-- Up Migration

do $$
begin
  if exists (
    select from pg_attribute a join pg_collation c on c.oid = a.attcollation
     where a.attrelid = 'state_schema.plugin_state'::regclass and a.attname in ('scope_id', 'namespace')
       and c.collname not in ('C', 'POSIX')) then
    create index if not exists plugin_sidecar_scope_order_idx
      on state_schema.plugin_state (plugin_id, scope_kind, scope_id collate "C", namespace collate "C");
  end if;
end $$;

-- Down Migration

drop index if exists state_schema.plugin_sidecar_scope_order_idx;
