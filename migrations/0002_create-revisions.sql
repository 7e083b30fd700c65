-- Every write of a plugin gets a revision of its own, in commit order, without holes.
--
-- One counter row per plugin, locked before a write and held until its commit: who holds it is the
-- only one to write, so the order of revisions is the order of commits, and a rollback gives its
-- numbers back. (A sequence would give numbers before commit: a reader could see 7 before 6.)
-- The same row counts the plugin's entries and their bytes, for quotas.

-- Up Migration

-- SQL functions are put into the statement that calls them, unless they claim to be immutable and use
-- one that isn't, as pg_column_size and date_part are: then each call costs 2 µs. So these are stable.

-- A value's size as JSON text. The text of a compressed or large one may be far larger than what is
-- stored, and too large to be written out.
create function plugin_sidecar.large_value_bytes(p_value jsonb) returns bigint
language plpgsql immutable as $$
begin
  return octet_length(p_value::text);
exception when program_limit_exceeded then
  return 1024 * 1024 * 1024;
end $$;

create function plugin_sidecar.value_bytes(p_value jsonb) returns bigint
language sql stable
return case when pg_column_compression(p_value) is null and pg_column_size(p_value) <= 8192
            then octet_length(p_value::text)
            else plugin_sidecar.large_value_bytes(p_value) end;

-- What an entry counts for: bytes of its scope id, namespace, key and value.
create function plugin_sidecar.entry_bytes(p_id text, p_namespace text, p_key text, p_value jsonb)
returns bigint
language sql stable
return coalesce(octet_length(p_id), 0) + octet_length(p_namespace) + octet_length(p_key)
       + plugin_sidecar.value_bytes(p_value);

-- fillfactor: the row is rewritten at every write and must stay in its page.
create table plugin_sidecar.plugin_revisions (
  plugin_id uuid primary key references state_schema.plugins (id) on delete cascade,
  revision  bigint not null default 0,
  entries   bigint not null default 0,
  bytes     bigint not null default 0
) with (fillfactor = 20);

-- Numbers the writes of everybody else (the host's plain SQL) on plugin_state, when their transaction
-- commits.
--
-- Deferred, because the counter must be the last thing a foreign transaction locks: whoever holds it
-- then waits for no entry, so the sidecar adds no deadlock to those the writers have among
-- themselves. (A trigger before or after the row would take the counter between two entries.)
--
-- The numbers of a transaction are taken in one go: a counter row that is updated for each of n rows
-- in one transaction leaves n versions to walk over (20,000 rows: 17 s instead of 1.6 s). So every
-- write is first counted, in a setting that lasts as long as its (sub)transaction: writes, entries and
-- bytes. Sizes are computed, not read: size_bytes isn't up to date before the commit.
--
-- Security definer: the host's role has no rights on the sidecar's schema, and needs none.
create function plugin_sidecar.count_foreign_write() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_plugin uuid := case when tg_op = 'DELETE' then old.plugin_id else new.plugin_id end;
  v_name text := 'plugin_sidecar.waiting_' || replace(v_plugin::text, '-', '');
  v_waiting bigint[] := string_to_array(coalesce(nullif(current_setting(v_name, true), ''), '0,0,0'), ',');
begin
  v_waiting[1] := v_waiting[1] + 1;
  if tg_op <> 'INSERT' then
    v_waiting[2] := v_waiting[2] - 1;
    v_waiting[3] := v_waiting[3]
                    - plugin_sidecar.entry_bytes(old.scope_id, old.namespace, old.state_key, old.value_json);
  end if;
  if tg_op <> 'DELETE' then
    v_waiting[2] := v_waiting[2] + 1;
    v_waiting[3] := v_waiting[3]
                    + plugin_sidecar.entry_bytes(new.scope_id, new.namespace, new.state_key, new.value_json);
  end if;
  perform set_config(v_name, array_to_string(v_waiting, ','), true);
  return null;
end $$;

-- A plugin that is being deleted has no counter any more: there is nothing left to number.
create function plugin_sidecar.number_foreign_write() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_plugin uuid := case when tg_op = 'DELETE' then old.plugin_id else new.plugin_id end;
  v_suffix text := replace(v_plugin::text, '-', '');
  v_waiting bigint[] := string_to_array(current_setting('plugin_sidecar.waiting_' || v_suffix), ',');
  v_next bigint := nullif(current_setting('plugin_sidecar.next_' || v_suffix, true), '')::bigint;
  v_last bigint := nullif(current_setting('plugin_sidecar.last_' || v_suffix, true), '')::bigint;
  v_writer text := coalesce(current_setting('plugin_sidecar.writer', true), '');
begin
  if v_next is null or v_next > v_last then
    if tg_op <> 'DELETE' then
      insert into plugin_sidecar.plugin_revisions (plugin_id)
        select p.id from state_schema.plugins p
         where p.id = v_plugin
           and not exists (select from plugin_sidecar.plugin_revisions r where r.plugin_id = v_plugin)
        on conflict do nothing;
    end if;
    update plugin_sidecar.plugin_revisions r
       set revision = r.revision + v_waiting[1], entries = r.entries + v_waiting[2],
           bytes = r.bytes + v_waiting[3]
     where r.plugin_id = v_plugin
     returning r.revision - v_waiting[1] + 1, r.revision into v_next, v_last;
    if not found then
      return null;
    end if;
    perform set_config('plugin_sidecar.waiting_' || v_suffix, '0,0,0', true);
    perform set_config('plugin_sidecar.last_' || v_suffix, v_last::text, true);
  end if;
  perform set_config('plugin_sidecar.next_' || v_suffix, (v_next + 1)::text, true);
  if tg_op <> 'DELETE' then
    -- What it writes itself isn't to be numbered. (A function that has this setting as its own could only
    -- be made by a superuser.) The transaction may go on, if it asked for its constraints early.
    perform set_config('plugin_sidecar.writer', 'sidecar', true);
    -- Who writes without an expiry means none.
    update state_schema.plugin_state s
       set revision = v_next, expires_at = null,
           size_bytes = plugin_sidecar.entry_bytes(s.scope_id, s.namespace, s.state_key, s.value_json)
     where s.id = new.id;
    perform set_config('plugin_sidecar.writer', v_writer, true);
  end if;
  return null;
end $$;

create trigger plugin_sidecar_count_foreign_write
  after insert or update or delete on state_schema.plugin_state
  for each row
  when (current_setting('plugin_sidecar.writer', true) is distinct from 'sidecar')
  execute function plugin_sidecar.count_foreign_write();

-- The sidecar numbers its own writes, a batch at once, and says so for the length of its transaction.
create constraint trigger plugin_sidecar_number_foreign_write
  after insert or update or delete on state_schema.plugin_state
  deferrable initially deferred
  for each row
  when (current_setting('plugin_sidecar.writer', true) is distinct from 'sidecar')
  execute function plugin_sidecar.number_foreign_write();

-- No row tells which plugins a truncate emptied: all of them. It counts as one write of each.
create function plugin_sidecar.count_foreign_truncate() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update plugin_sidecar.plugin_revisions set revision = revision + 1, entries = 0, bytes = 0
   where entries > 0;
  return null;
end $$;

create trigger plugin_sidecar_count_foreign_truncate
  after truncate on state_schema.plugin_state
  for each statement execute function plugin_sidecar.count_foreign_truncate();

insert into plugin_sidecar.plugin_revisions (plugin_id, entries, bytes)
select p.id, count(s.id),
       coalesce(sum(plugin_sidecar.entry_bytes(s.scope_id, s.namespace, s.state_key, s.value_json)), 0)
  from state_schema.plugins p left join state_schema.plugin_state s on s.plugin_id = p.id
 group by p.id;

-- Whoever serves is granted them by name: see docs/database.md.
revoke execute on all functions in schema plugin_sidecar from public;

-- Down Migration

drop trigger plugin_sidecar_number_foreign_write on state_schema.plugin_state;
drop function plugin_sidecar.number_foreign_write();
drop trigger plugin_sidecar_count_foreign_write on state_schema.plugin_state;
drop function plugin_sidecar.count_foreign_write();
drop trigger plugin_sidecar_count_foreign_truncate on state_schema.plugin_state;
drop function plugin_sidecar.count_foreign_truncate();
drop table plugin_sidecar.plugin_revisions;
drop function plugin_sidecar.entry_bytes(text, text, text, jsonb);
drop function plugin_sidecar.value_bytes(jsonb);
drop function plugin_sidecar.large_value_bytes(jsonb);
