-- Every write of a plugin gets a revision of its own, in commit order, without holes.
--
-- One counter row per plugin, locked before a write and held until its commit: who holds it is the
-- only one to write, so the order of revisions is the order of commits, and a rollback gives its
-- numbers back. (A sequence would give numbers before commit: a reader could see 7 before 6.)

-- Up Migration

-- fillfactor: the row is rewritten at every write and must stay in its page.
create table plugin_sidecar.plugin_revisions (
  plugin_id uuid primary key references state_schema.plugins (id) on delete cascade,
  revision  bigint not null default 0
) with (fillfactor = 20);

-- Numbers the writes of everybody else (the host's plain SQL) on plugin_state.
--
-- Lock order is entry, then counter, for each of insert, update and delete: an update or delete has
-- locked its row before a trigger runs, so an upsert must not take the counter first, or two
-- hosts would deadlock on one key where they didn't without the sidecar.
-- An upsert of an existing entry comes here twice, as an insert and then as an update. Only the
-- update takes a number.
create function plugin_sidecar.number_foreign_write() returns trigger
language plpgsql as $$
begin
  if tg_op = 'DELETE' then
    -- No row when the plugin itself is being deleted: then there is nothing left to number.
    update plugin_sidecar.plugin_revisions set revision = revision + 1
     where plugin_id = old.plugin_id;
    return old;
  end if;
  if tg_op = 'INSERT' then
    if plugin_sidecar.lock_entry(new.plugin_id, new.scope_kind, new.scope_id, new.namespace, new.state_key) then
      return new;
    end if;
    insert into plugin_sidecar.plugin_revisions (plugin_id)
      select p.id from state_schema.plugins p where p.id = new.plugin_id
      on conflict do nothing;
    perform from plugin_sidecar.plugin_revisions r where r.plugin_id = new.plugin_id for update;
    -- Somebody may have inserted it while this waited for the counter.
    if plugin_sidecar.lock_entry(new.plugin_id, new.scope_kind, new.scope_id, new.namespace, new.state_key) then
      return new;
    end if;
  end if;
  update plugin_sidecar.plugin_revisions set revision = revision + 1
   where plugin_id = new.plugin_id
   returning revision into new.revision;
  -- No counter: the plugin isn't registered, and the foreign key says so at the end of the statement.
  new.revision := coalesce(new.revision, 0);
  return new;
end $$;

-- Locks an entry until the end of the transaction; false when there is none.
-- Why the key is asked for as a range, in order: see 0003.
create function plugin_sidecar.lock_entry(
  p_plugin uuid, p_kind text, p_id text, p_namespace text, p_key text) returns boolean
language plpgsql
set enable_seqscan = off
set enable_sort = off
as $$
begin
  if p_id is null then
    perform from state_schema.plugin_state s
      where s.plugin_id = p_plugin and s.scope_kind = p_kind and s.scope_id is null
        and s.namespace = p_namespace and s.state_key >= p_key and s.state_key <= p_key
      order by s.scope_id, s.state_key limit 1
      for no key update;
  else
    perform from state_schema.plugin_state s
      where s.plugin_id = p_plugin and s.scope_kind = p_kind and s.scope_id = p_id
        and s.namespace = p_namespace and s.state_key >= p_key and s.state_key <= p_key
      order by s.state_key limit 1
      for no key update;
  end if;
  return found;
end $$;

-- The sidecar numbers its own writes, a batch at once, and says so for the length of its transaction.
create trigger plugin_sidecar_number_foreign_write
  before insert or update or delete on state_schema.plugin_state
  for each row
  when (current_setting('plugin_sidecar.writer', true) is distinct from 'sidecar')
  execute function plugin_sidecar.number_foreign_write();

insert into plugin_sidecar.plugin_revisions (plugin_id) select id from state_schema.plugins;

-- Down Migration

drop trigger plugin_sidecar_number_foreign_write on state_schema.plugin_state;
drop function plugin_sidecar.number_foreign_write();
drop function plugin_sidecar.lock_entry(uuid, text, text, text, text);
drop table plugin_sidecar.plugin_revisions;
