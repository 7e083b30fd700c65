-- Every write of a plugin gets a revision of its own, in commit order, without holes.
--
-- One counter row per plugin, locked before a write of the sidecar's and held until its commit: who holds it is the
-- only one to number writes, so the order of revisions is the order of commits, and a rollback gives its numbers
-- back. (A sequence would give numbers before commit: a reader could see 7 before 6.) The same row counts the
-- plugin's entries and their bytes, for quotas.
--
-- External writers, the host's plain SQL, take no counter and wait for nothing. Triggers stamp the rows they write
-- and append what they did to external_writes. Whoever holds the counter next gives those writes their revisions,
-- before its own; a read that sees some without has them numbered first. So a write that was committed before a
-- call began has a smaller revision than what that call does or reads.

-- Up Migration

-- Bodies are strings, never SQL-standard ones (`return …`): those are resolved when the function is created, and a
-- dump may create functions in the order of their names. Small SQL functions are put into the statement that calls
-- them, unless they claim to be immutable and use one that isn't, as pg_column_size and date_part are.

-- A value's size as JSON text. The text of a compressed or large one may be far larger than what is stored, and too
-- large to be written out.
create function plugin_sidecar.large_value_bytes(p_value jsonb) returns bigint
language plpgsql immutable as $$
begin
  return octet_length(p_value::text);
exception when program_limit_exceeded then
  return 1024 * 1024 * 1024;
end $$;

create function plugin_sidecar.value_bytes(p_value jsonb) returns bigint
language sql stable as $$
  select case when pg_column_compression(p_value) is null and pg_column_size(p_value) <= 8192
              then octet_length(p_value::text)
              else plugin_sidecar.large_value_bytes(p_value) end
$$;

-- What an entry counts for: bytes of its scope id, namespace, key and value.
create function plugin_sidecar.entry_bytes(p_id text, p_namespace text, p_key text, p_value jsonb)
returns bigint
language sql stable as $$
  select coalesce(octet_length(p_id), 0) + octet_length(p_namespace) + octet_length(p_key)
         + plugin_sidecar.value_bytes(p_value)
$$;

-- The counters. No foreign key: the host's tables can be dropped, restored and truncated without us. The row of a
-- plugin that is gone is removed by the sweep.
--
-- fillfactor: the row is rewritten at every write and must stay in its page.
create table plugin_sidecar.plugin_revisions (
  plugin_id     uuid primary key,
  revision      bigint not null default 0,
  entries       bigint not null default 0,
  bytes         bigint not null default 0,
  -- No entry has a smaller revision than this: it is that of the last attaching, before which nobody knows what
  -- was done to the entries.
  base_revision bigint not null default 0,
  -- Another one when the history of revisions was broken.
  epoch         uuid not null default gen_random_uuid(),
  -- The attachment in which the plugin's entries were counted.
  attachment    uuid not null,
  -- External writes of transactions that had begun to write when they were last numbered (by their ids), and of all
  -- from this transaction id on, may have no revision yet. Of others none is left. Both only keep a look at
  -- external_writes from walking over rows that were removed and aren't vacuumed yet.
  external_xmax bigint not null default 0,
  external_open bigint[] not null default '{}'
) with (fillfactor = 20);

-- What external writers did to entries, until it has a revision: a row for each entry a statement wrote.
--
-- Only appended to by them. One index and no constraint that could wait or fail.
create table plugin_sidecar.external_writes (
  plugin_id  uuid not null,
  -- The writer's transaction. A transaction's writes are numbered together.
  xact       bigint not null,
  -- In the order in which each entry was written: the writer held it, or its name, when it took the id.
  id         bigint not null,
  -- INSERT, UPDATE, DELETE, or TRUNCATE, which has no entry.
  kind       text not null,
  scope_kind text,
  scope_id   text,
  namespace  text,
  state_key  text,
  -- The row's stamp, and the one it had before; without that, what it counted for.
  stamp      uuid,
  replaces   uuid,
  old_bytes  bigint,
  written_at timestamptz not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
create index external_writes_idx on plugin_sidecar.external_writes (plugin_id, xact, id);
create sequence plugin_sidecar.external_write_ids;

-- The revisions of entries whose last writer was external, by the stamps of their rows (sidecar_write_id, which the
-- sidecar's own writes empty). Not in the row: to write them there would make the host's own next write of it wait
-- or, at repeatable read, fail.
create table plugin_sidecar.external_revisions (
  plugin_id uuid not null,
  stamp     uuid not null,
  revision  bigint not null,
  -- What the entry counts for.
  bytes     bigint not null,
  primary key (plugin_id, stamp)
);

-- What a trigger could not do, because the host changed a table or took away what is ours. The host's statement went
-- on; since then nobody knows what was written. Attaching anew empties it.
create table plugin_sidecar.trigger_faults (
  at      timestamptz not null,
  problem text not null
);

-- Notes what a trigger could not do; once is enough.
create function plugin_sidecar.note_trigger_fault(p_problem text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regclass('plugin_sidecar.trigger_faults') is not null
     and not exists (select from plugin_sidecar.trigger_faults) then
    insert into plugin_sidecar.trigger_faults (at, problem) values (clock_timestamp(), p_problem);
  end if;
exception when others then
  null;
end $$;

-- Append what an external writer did to an entry, one function for each of its statements' kinds.
--
-- They can't fail the host's statement, lock nothing and wait for nothing. What could fail because the host changed
-- its table stands in a block that writes nothing: such a block takes no transaction id, so that a transaction of many
-- writes has no more subtransactions than before. In one expression: PL/pgSQL prepares each anew in each transaction,
-- for 2 µs and more. An update is stamped and logged before it is done, which saves a call: the row is held by then.
--
-- Of v, f1 to f5 are the entry's name; f6 and f7 its stamp now and before; f8 what it counted for; f9 what is unusual.
-- Security definer: the host's role has no rights on the sidecar's schema, and needs none.
create function plugin_sidecar.log_external_insert() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  begin
    v := row(
      new.plugin_id::uuid, new.scope_kind::text, new.scope_id::text, new.namespace::text, new.state_key::text,
      new.sidecar_write_id::uuid, null, null,
      case when new.plugin_id is null then 'a row has no plugin_id'
           when new.sidecar_write_id is null
             then 'a row was inserted with the sidecar''s columns, or a default of theirs is missing'
           when coalesce(pg_relation_size(to_regclass('plugin_sidecar.external_writes')), 1099511627776) > 1073741824
             then 'external_writes is missing, or has reached 1 GiB: no sidecar has taken it for too long' end);
  exception when others then
    perform plugin_sidecar.note_trigger_fault(
      tg_table_schema || '.' || tg_table_name || ' is not as it was: ' || sqlerrm);
    return null;
  end;
  if v.f9 is null then
    insert into plugin_sidecar.external_writes
           (plugin_id, xact, id, kind, scope_kind, scope_id, namespace, state_key, stamp, written_at)
    values (v.f1, pg_current_xact_id()::text::bigint, nextval('plugin_sidecar.external_write_ids'), tg_op,
            v.f2, v.f3, v.f4, v.f5, v.f6, clock_timestamp());
  else
    perform plugin_sidecar.note_trigger_fault(v.f9);
  end if;
  return null;
end $$;

create function plugin_sidecar.log_external_update() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
  -- f1 to f5: the name that it had.
  v_old record;
begin
  begin
    -- What the sidecar noted of the row holds no longer.
    new.sidecar_write_id := gen_random_uuid();
    -- Who writes without an expiry means none.
    new.sidecar_expires_at := null;
    v := row(
      new.plugin_id::uuid, new.scope_kind::text, new.scope_id::text, new.namespace::text, new.state_key::text,
      new.sidecar_write_id::uuid, old.sidecar_write_id::uuid,
      case when old.sidecar_write_id is null
           then coalesce(old.sidecar_bytes, plugin_sidecar.entry_bytes(
                  old.scope_id, old.namespace, old.state_key, old.value_json)) end,
      case when new.plugin_id is null then 'a row has no plugin_id'
           when coalesce(pg_relation_size(to_regclass('plugin_sidecar.external_writes')), 1099511627776) > 1073741824
             then 'external_writes is missing, or has reached 1 GiB: no sidecar has taken it for too long'
           when (new.plugin_id, new.scope_kind, new.scope_id, new.namespace, new.state_key)
                is distinct from (old.plugin_id, old.scope_kind, old.scope_id, old.namespace, old.state_key)
             then 'moved' end);
  exception when others then
    perform plugin_sidecar.note_trigger_fault(
      tg_table_schema || '.' || tg_table_name || ' is not as it was: ' || sqlerrm);
    return new;
  end;
  if v.f9 is null then
    insert into plugin_sidecar.external_writes
           (plugin_id, xact, id, kind, scope_kind, scope_id, namespace, state_key, stamp, replaces, old_bytes, written_at)
    values (v.f1, pg_current_xact_id()::text::bigint, nextval('plugin_sidecar.external_write_ids'), tg_op,
            v.f2, v.f3, v.f4, v.f5, v.f6, v.f7, v.f8, clock_timestamp());
  elsif v.f9 = 'moved' then
    begin
      v_old := row(old.plugin_id::uuid, old.scope_kind::text, old.scope_id::text, old.namespace::text, old.state_key::text);
    exception when others then
      perform plugin_sidecar.note_trigger_fault(
        tg_table_schema || '.' || tg_table_name || ' is not as it was: ' || sqlerrm);
      return new;
    end;
    -- Deleted under its old name, and inserted under the new one.
    insert into plugin_sidecar.external_writes
           (plugin_id, xact, id, kind, scope_kind, scope_id, namespace, state_key, stamp, replaces, old_bytes, written_at)
    values (v_old.f1, pg_current_xact_id()::text::bigint, nextval('plugin_sidecar.external_write_ids'), 'DELETE',
            v_old.f2, v_old.f3, v_old.f4, v_old.f5, null, v.f7, v.f8, clock_timestamp()),
           (v.f1, pg_current_xact_id()::text::bigint, nextval('plugin_sidecar.external_write_ids'), 'INSERT',
            v.f2, v.f3, v.f4, v.f5, v.f6, null, null, clock_timestamp());
  else
    perform plugin_sidecar.note_trigger_fault(v.f9);
  end if;
  return new;
end $$;

create function plugin_sidecar.log_external_delete() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  begin
    v := row(
      old.plugin_id::uuid, old.scope_kind::text, old.scope_id::text, old.namespace::text, old.state_key::text,
      null, old.sidecar_write_id::uuid,
      case when old.sidecar_write_id is null
           then coalesce(old.sidecar_bytes, plugin_sidecar.entry_bytes(
                  old.scope_id, old.namespace, old.state_key, old.value_json)) end,
      case when old.plugin_id is null then 'a row has no plugin_id'
           when coalesce(pg_relation_size(to_regclass('plugin_sidecar.external_writes')), 1099511627776) > 1073741824
             then 'external_writes is missing, or has reached 1 GiB: no sidecar has taken it for too long' end);
  exception when others then
    perform plugin_sidecar.note_trigger_fault(
      tg_table_schema || '.' || tg_table_name || ' is not as it was: ' || sqlerrm);
    return null;
  end;
  if v.f9 is null then
    insert into plugin_sidecar.external_writes
           (plugin_id, xact, id, kind, scope_kind, scope_id, namespace, state_key, replaces, old_bytes, written_at)
    values (v.f1, pg_current_xact_id()::text::bigint, nextval('plugin_sidecar.external_write_ids'), tg_op,
            v.f2, v.f3, v.f4, v.f5, v.f7, v.f8, clock_timestamp());
  else
    perform plugin_sidecar.note_trigger_fault(v.f9);
  end if;
  return null;
end $$;

-- No row tells which plugins a truncate emptied: all of them.
create function plugin_sidecar.log_external_truncate() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into plugin_sidecar.external_writes (plugin_id, xact, id, kind, written_at)
  select r.plugin_id, pg_current_xact_id()::text::bigint, nextval('plugin_sidecar.external_write_ids'), tg_op,
         clock_timestamp()
    from (select c.plugin_id from plugin_sidecar.plugin_revisions c
          union
          -- One that has no counter yet may have had entries.
          select p.id from state_schema.plugins p) r;
  return null;
exception when others then
  perform plugin_sidecar.note_trigger_fault('a truncate could not be noted: ' || sqlerrm);
  return null;
end $$;

-- Gives the next p_limit external writes of a plugin their revisions. For whoever holds the plugin's counter. Says
-- whether there may be more: then they come first of all.
--
-- A transaction's writes are numbered together, in the order of its last one, which is an order in which they could
-- have run one by one: who wrote an entry after another transaction had written it waited for that one's end.
--
-- enable_sort: see 0004. The sorts that there must be make the statement look expensive: hence no JIT.
create function plugin_sidecar.number_external_writes(p_plugin uuid, p_limit int) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_sort = off
set jit = off
as $$
declare
  -- The texts of larger values take too long to be measured at once.
  c_max_value_bytes constant bigint := 16 * 1024 * 1024;
  v_counter record;
  v_done record;
begin
  select r.* into strict v_counter from plugin_sidecar.plugin_revisions r where r.plugin_id = p_plugin;

  with waiting as materialized (
    select w.ctid as place, w.*
      from plugin_sidecar.external_writes w
     where w.plugin_id = p_plugin
       and (w.xact >= v_counter.external_xmax or w.xact = any (v_counter.external_open))
     order by w.id limit p_limit
  ), found as materialized (
    -- With each entry as it is now, by whomever.
    select w.*, s.now_stamp, s.value, coalesce(pg_column_size(s.value), 0) as stored_bytes
      from waiting w
      left join lateral (
        (select s.sidecar_write_id as now_stamp, s.value_json as value
           from state_schema.plugin_state s
          where w.scope_id is not null
            and s.plugin_id = p_plugin and s.scope_kind = w.scope_kind and s.scope_id = w.scope_id
            and s.namespace = w.namespace and s.state_key >= w.state_key and s.state_key <= w.state_key
          order by s.state_key limit 1)
        union all
        (select s.sidecar_write_id as now_stamp, s.value_json as value
           from state_schema.plugin_state s
          where w.scope_id is null
            and s.plugin_id = p_plugin and s.scope_kind = w.scope_kind and s.scope_id is null
            and s.namespace = w.namespace and s.state_key >= w.state_key and s.state_key <= w.state_key
          order by s.scope_id, s.state_key limit 1)
      ) s on true
  ), chosen as materialized (
    select f.*, max(f.id) over (partition by f.xact) as end_of_xact
      from (select f.*, sum(f.stored_bytes) over (order by f.id) - f.stored_bytes as bytes_before from found f) f
     where f.bytes_before <= c_max_value_bytes
  ), ordered as materialized (
    select c.*, row_number() over (order by c.end_of_xact, c.id) as n
      from chosen c
  ), truncated as materialized (
    select max(o.id) as id from ordered o where o.kind = 'TRUNCATE'
  ), kept as (
    insert into plugin_sidecar.external_revisions as x (plugin_id, stamp, revision, bytes)
    select distinct on (o.stamp) p_plugin, o.stamp, v_counter.revision + o.n,
           -- Who has written it since, and isn't numbered yet, will count it.
           case when o.stamp = o.now_stamp then plugin_sidecar.entry_bytes(o.scope_id, o.namespace, o.state_key, o.value)
                else 0 end
      from ordered o cross join truncated t
     where o.kind in ('INSERT', 'UPDATE') and (t.id is null or o.id > t.id)
       -- By stamps, not by ids: a row that a trigger of the host's writes again may be logged in the reverse order.
       and o.stamp not in (select r.replaces from ordered r where r.replaces is not null)
     order by o.stamp, o.n desc
    -- Somebody may have copied rows with their stamps.
    on conflict (plugin_id, stamp) do update set revision = excluded.revision
    returning x.bytes
  ), forgotten as (
    delete from plugin_sidecar.external_revisions x
     using (select o.replaces as stamp from ordered o where o.replaces is not null
            union
            select a.stamp from plugin_sidecar.external_revisions a cross join truncated t
             where a.plugin_id = p_plugin and t.id is not null) gone
     where x.plugin_id = p_plugin and x.stamp = gone.stamp
    returning x.bytes
  ), removed as (
    delete from plugin_sidecar.external_writes w
     where (w.plugin_id = p_plugin) is true and w.ctid = any (array(select o.place from ordered o))
    returning 1
  )
  select (select count(*) from removed) as writes,
         t.id is not null as is_truncated,
         coalesce(sum(case o.kind when 'INSERT' then 1 when 'DELETE' then -1 else 0 end), 0) as more_entries,
         (select coalesce(sum(k.bytes), 0) from kept k) - coalesce(sum(o.old_bytes), 0)
           - case when t.id is null then (select coalesce(sum(f.bytes), 0) from forgotten f) else 0 end as more_bytes,
         (select count(*) from waiting) = p_limit
           or (select count(*) from waiting) > (select count(*) from removed) as more,
         pg_snapshot_xmax(pg_current_snapshot())::text::bigint as xmax,
         array(select x::text::bigint from pg_snapshot_xip(pg_current_snapshot()) x) as open
    into v_done
    from truncated t left join ordered o on t.id is null or o.id > t.id
   group by t.id;

  update plugin_sidecar.plugin_revisions r
     set revision = v_counter.revision + v_done.writes,
         entries = case when v_done.is_truncated then 0 else v_counter.entries end + v_done.more_entries,
         bytes = case when v_done.is_truncated then 0 else v_counter.bytes end + v_done.more_bytes,
         external_xmax = case when v_done.more then r.external_xmax else v_done.xmax end,
         external_open = case when v_done.more then r.external_open else v_done.open end
   where r.plugin_id = p_plugin;
  return v_done.more;
end $$;

-- Locks a plugin's counter for writes of the sidecar's, until the transaction ends, and tells it: external writes
-- that were committed by then have their revisions. All null when the plugin is gone, has no
-- counter, or more external writes than can be numbered at once: settle_external_writes is to be called first.
create function plugin_sidecar.begin_writes(
  p_plugin uuid, out revision bigint, out entries bigint, out bytes bigint, out base_revision bigint,
  out external_xmax bigint, out external_open bigint[], out begun_at timestamptz)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_setting text;
begin
  select r.revision, r.entries, r.bytes, r.base_revision, r.external_xmax, r.external_open
    into begin_writes.revision, begin_writes.entries, begin_writes.bytes, begin_writes.base_revision,
         begin_writes.external_xmax, begin_writes.external_open
    from plugin_sidecar.plugin_revisions r
   where r.plugin_id = p_plugin and exists (select from state_schema.plugins p where p.id = p_plugin)
     for no key update of r;
  if not found then
    return;
  end if;
  if begin_writes.external_xmax > pg_snapshot_xmax(pg_current_snapshot())::text::bigint then
    -- Of another server's transactions.
    begin_writes.revision := null;
    return;
  end if;
  if exists (select from plugin_sidecar.external_writes w
              where w.plugin_id = p_plugin and w.xact >= begin_writes.external_xmax)
     or begin_writes.external_open <> '{}'
        and exists (select from plugin_sidecar.external_writes w
                     where w.plugin_id = p_plugin and w.xact = any (begin_writes.external_open)) then
    if plugin_sidecar.number_external_writes(p_plugin, 5000) then
      begin_writes.revision := null;
      return;
    end if;
    select r.revision, r.entries, r.bytes, r.external_xmax, r.external_open
      into begin_writes.revision, begin_writes.entries, begin_writes.bytes, begin_writes.external_xmax,
           begin_writes.external_open
      from plugin_sidecar.plugin_revisions r where r.plugin_id = p_plugin;
  end if;
  -- The counter is ours: nobody can hold an entry but an external writer, who waits for nothing of ours but entries.
  -- Give up soon and be sent again, rather than make it wait for one while we wait for another.
  v_setting := set_config('lock_timeout', '20ms', true);
  -- For the triggers on external writes: these are none.
  v_setting := set_config('plugin_sidecar.writer', 'sidecar', true);
  -- Not now(), which is from before the wait for the counter: times go the way revisions go.
  begun_at := clock_timestamp();
end $$;

-- Fails unless every external write of these entries has its revision by now: one that was committed since
-- begin_writes came before ours, and must have a smaller one. For the end of a transaction, which has looked at all
-- of them and written some, so that nobody else can write those any more.
create function plugin_sidecar.require_numbered(
  p_plugin uuid, p_xmax bigint, p_open bigint[], p_kind text[], p_id text[], p_namespace text[], p_key text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  if (exists (select from plugin_sidecar.external_writes w where w.plugin_id = p_plugin and w.xact >= p_xmax)
      or p_open <> '{}'
         and exists (select from plugin_sidecar.external_writes w
                      where w.plugin_id = p_plugin and w.xact = any (p_open)))
     and exists (
       select from plugin_sidecar.external_writes w
         join rows from (unnest(p_kind), unnest(p_id), unnest(p_namespace), unnest(p_key))
              as n (kind, id, namespace, key)
           on n.kind = w.scope_kind and n.id is not distinct from w.scope_id and n.namespace = w.namespace
              and n.key = w.state_key
        where w.plugin_id = p_plugin
       union all
       select from plugin_sidecar.external_writes w where w.plugin_id = p_plugin and w.kind = 'TRUNCATE') then
    raise exception 'an external write came between' using errcode = 'serialization_failure';
  end if;
end $$;

-- Gives a plugin's external writes their revisions, a bounded number of them, and makes its counter if it has none.
-- Says whether there may be more. is_registered is false when the host has no such plugin.
--
-- p_is_thorough: also those that the counter says can't be there. It says so by transaction ids, which begin anew in
-- a server that the database was restored to.
create function plugin_sidecar.settle_external_writes(
  p_plugin uuid, p_is_thorough boolean, out is_registered boolean, out more boolean)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  more := false;
  is_registered := exists (select from state_schema.plugins p where p.id = p_plugin);
  if not is_registered then
    return;
  end if;
  if p_is_thorough then
    -- The sweep waits no longer for a plugin's counter: it comes again. Mostly there is nothing to do.
    if exists (select from plugin_sidecar.plugin_revisions r
                where r.plugin_id = p_plugin and r.external_xmax <= pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
       and not exists (select from plugin_sidecar.external_writes w where w.plugin_id = p_plugin) then
      return;
    end if;
    perform set_config('lock_timeout', '1s', true);
  else
    -- For a read, which is to hold up neither other plugins' calls, by waiting for this one's counter with a connection
    -- of the pool, nor other sidecars, should its own be stopped before it commits.
    perform set_config('lock_timeout', '200ms', true);
    perform set_config('idle_in_transaction_session_timeout', '2s', true);
  end if;
  perform from plugin_sidecar.plugin_revisions r where r.plugin_id = p_plugin for no key update;
  if not found then
    -- All that it has was written under the triggers: attaching counts what is older.
    -- While attaching isn't complete, it has yet to count this plugin.
    insert into plugin_sidecar.plugin_revisions (plugin_id, attachment)
    select p_plugin, case when i.attached_at is null then gen_random_uuid() else i.attachment end
      from plugin_sidecar.installation i
    on conflict do nothing;
    perform from plugin_sidecar.plugin_revisions r where r.plugin_id = p_plugin for no key update;
  end if;
  update plugin_sidecar.plugin_revisions r set external_xmax = 0, external_open = '{}'
   where r.plugin_id = p_plugin
     and (r.external_xmax > pg_snapshot_xmax(pg_current_snapshot())::text::bigint
          or p_is_thorough and exists (select from plugin_sidecar.external_writes w where w.plugin_id = p_plugin));
  if exists (
    select from plugin_sidecar.plugin_revisions r
     where r.plugin_id = p_plugin
       and exists (select from plugin_sidecar.external_writes w
                    where w.plugin_id = p_plugin
                      and (w.xact >= r.external_xmax or w.xact = any (r.external_open)))) then
    more := plugin_sidecar.number_external_writes(p_plugin, 5000);
  end if;
end $$;

-- Removes what is kept for a plugin that the host has no more, a bounded number of rows; says whether there is more.
--
-- Its external writes are numbered rather than removed, and its counter goes with the last of them: the host may
-- register the plugin again at any time, and counts must be right then.
create function plugin_sidecar.forget_plugin(p_plugin uuid, p_limit int) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table text;
  v_rows int;
begin
  if exists (select from state_schema.plugins p where p.id = p_plugin) then
    return false;
  end if;
  foreach v_table in array array['requests', 'batches'] loop
    execute format($query$
      delete from plugin_sidecar.%1$I t
       where (t.plugin_id = $1) is true
         and t.ctid = any (array(select q.ctid from plugin_sidecar.%1$I q where q.plugin_id = $1 limit $2))$query$,
      v_table)
    using p_plugin, p_limit;
    get diagnostics v_rows = row_count;
    if v_rows >= p_limit then
      return true;
    end if;
  end loop;
  insert into plugin_sidecar.plugin_revisions (plugin_id, attachment)
  select p_plugin, i.attachment from plugin_sidecar.installation i
   where exists (select from plugin_sidecar.external_writes w where w.plugin_id = p_plugin)
  on conflict (plugin_id) do update set external_xmax = 0, external_open = '{}';
  if found and plugin_sidecar.number_external_writes(p_plugin, 40 * p_limit) then
    return true;
  end if;
  -- Without entries it has no more of these.
  delete from plugin_sidecar.external_revisions x
   where x.plugin_id = p_plugin and not exists (select from state_schema.plugins p where p.id = p_plugin);
  delete from plugin_sidecar.plugin_revisions r
   where r.plugin_id = p_plugin
     and not exists (select from state_schema.plugins p where p.id = p_plugin)
     and not exists (select from plugin_sidecar.external_writes w where w.plugin_id = p_plugin);
  return false;
end $$;

-- The next plugin, in the order of ids after p_after, that the sweep has to look at though no sidecar may serve it:
-- its external writes wait for their revisions, or the host has it no more. Null when there is none.
create function plugin_sidecar.next_plugin_to_sweep(p_after uuid) returns uuid
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select min(next.plugin_id::text)::uuid
    from ((select w.plugin_id from plugin_sidecar.external_writes w
            where w.plugin_id > p_after order by w.plugin_id limit 1)
          union all
          (select r.plugin_id from plugin_sidecar.plugin_revisions r
            where r.plugin_id > p_after
              and not exists (select from state_schema.plugins p where p.id = r.plugin_id)
            order by r.plugin_id limit 1)) next
$$;

-- What keeps the sidecar from knowing all that is written, as a sentence; null when nothing does.
create function plugin_sidecar.attachment_problem() returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_state regclass := to_regclass('state_schema.plugin_state');
  v_plugins regclass := to_regclass('state_schema.plugins');
  v_missing text;
begin
  if v_state is null or v_plugins is null then
    return 'schema state_schema has no tables plugins and plugin_state';
  end if;
  select string_agg(w.name, ', ') into v_missing
    from unnest(array['id', 'plugin_id', 'scope_kind', 'scope_id', 'namespace', 'state_key', 'value_json', 'updated_at',
                      'sidecar_revision', 'sidecar_write_id', 'sidecar_created_at', 'sidecar_expires_at',
                      'sidecar_bytes']) as w (name)
   where not exists (select from pg_attribute a
                      where a.attrelid = v_state and a.attname = w.name and not a.attisdropped);
  if v_missing is not null then
    return 'table state_schema.plugin_state lacks columns: ' || v_missing;
  end if;
  select string_agg(w.name, ', ') into v_missing
    from unnest(array['plugin_sidecar_log_insert', 'plugin_sidecar_log_update', 'plugin_sidecar_log_delete',
                      'plugin_sidecar_log_truncate']) as w (name)
   where not exists (select from pg_trigger t
                      where t.tgrelid = v_state and t.tgname = w.name and t.tgenabled in ('O', 'A'));
  if v_missing is not null then
    return 'table state_schema.plugin_state lacks triggers of the sidecar, or they are disabled: ' || v_missing;
  end if;
  if not exists (select from pg_index i join pg_class c on c.oid = i.indexrelid
                  where i.indrelid = v_state and c.relname = 'plugin_state_unique_entry_idx'
                    and i.indisunique and i.indisvalid and i.indnullsnotdistinct) then
    return 'constraint plugin_state_unique_entry_idx of state_schema.plugin_state is missing or lacks NULLS NOT DISTINCT';
  end if;
  if row_security_active(v_state) or row_security_active(v_plugins) then
    return 'row-level security hides rows of state_schema.plugin_state or plugins from role ' || current_user;
  end if;
  select f.problem into v_missing from plugin_sidecar.trigger_faults f limit 1;
  if found then
    return 'writes of other programs went unnoticed: ' || v_missing;
  end if;
  if not exists (select from plugin_sidecar.installation i where i.attached_at is not null) then
    return 'attaching to state_schema.plugin_state is not complete';
  end if;
  return null;
end $$;

-- Begins an attachment: all that is known of entries from before is in doubt. For whoever holds a lock on
-- plugin_state that keeps writers out, so that each write either was done before or is logged.
create function plugin_sidecar.begin_attachment() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Every plugin is counted again. Truncated, because what has reached 1 GiB must be small again at once.
  truncate plugin_sidecar.external_writes;
  delete from plugin_sidecar.trigger_faults;
  -- Nobody would count them again.
  delete from plugin_sidecar.plugin_revisions r
   where not exists (select from state_schema.plugins p where p.id = r.plugin_id);
  update plugin_sidecar.installation set attachment = gen_random_uuid(), attached_at = null;
end $$;

-- Counts the entries of the next plugin that wasn't counted in this attachment, and begins a new epoch of its
-- revisions. Answers its id, or null when all are counted: then the attachment is complete.
--
-- The new base_revision is above every revision that was known, also if the counter is gone and rows alone have
-- some, as after somebody dropped this schema: no condition on a revision of before holds.
create function plugin_sidecar.attach_next_plugin() returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_attachment uuid;
  v_plugin uuid;
  v_revision bigint;
begin
  select i.attachment into v_attachment from plugin_sidecar.installation i;
  select p.id into v_plugin from state_schema.plugins p
   where not exists (select from plugin_sidecar.plugin_revisions r
                      where r.plugin_id = p.id and r.attachment = v_attachment)
   order by p.id limit 1;
  if not found then
    update plugin_sidecar.installation set attached_at = clock_timestamp() where attachment = v_attachment;
    return null;
  end if;
  insert into plugin_sidecar.plugin_revisions (plugin_id, attachment) values (v_plugin, gen_random_uuid())
  on conflict do nothing;
  select r.revision into v_revision from plugin_sidecar.plugin_revisions r where r.plugin_id = v_plugin for update;
  delete from plugin_sidecar.external_revisions x where x.plugin_id = v_plugin;
  -- In one statement, so that a write is counted or numbered later, but not both.
  with logged as (
    delete from plugin_sidecar.external_writes w where w.plugin_id = v_plugin
  ), measured as materialized (
    select s.sidecar_write_id as stamp, s.sidecar_revision as revision,
           plugin_sidecar.entry_bytes(s.scope_id, s.namespace, s.state_key, s.value_json) as bytes
      from state_schema.plugin_state s where s.plugin_id = v_plugin
  ), counted as materialized (
    select count(*) as entries, coalesce(sum(m.bytes), 0) as bytes, greatest(v_revision, max(m.revision)) as known
      from measured m
  ), based as materialized (
    select c.known + (c.known > 0)::int as revision from counted c
  ), kept as (
    insert into plugin_sidecar.external_revisions (plugin_id, stamp, revision, bytes)
    select v_plugin, m.stamp, b.revision, m.bytes from measured m cross join based b where m.stamp is not null
    on conflict (plugin_id, stamp) do nothing
  )
  update plugin_sidecar.plugin_revisions r
     set revision = b.revision, base_revision = b.revision, epoch = gen_random_uuid(), attachment = v_attachment,
         entries = c.entries, bytes = c.bytes,
         external_xmax = pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
         external_open = array(select x::text::bigint from pg_snapshot_xip(pg_current_snapshot()) x)
    from counted c cross join based b
   where r.plugin_id = v_plugin;
  return v_plugin;
end $$;

-- Whoever serves is granted them by name: see docs/database.md.
revoke execute on all functions in schema plugin_sidecar from public;

-- Down Migration

drop function plugin_sidecar.attach_next_plugin();
drop function plugin_sidecar.begin_attachment();
drop function plugin_sidecar.attachment_problem();
drop function plugin_sidecar.next_plugin_to_sweep(uuid);
drop function plugin_sidecar.forget_plugin(uuid, int);
drop function plugin_sidecar.settle_external_writes(uuid, boolean);
drop function plugin_sidecar.require_numbered(uuid, bigint, bigint[], text[], text[], text[], text[]);
drop function plugin_sidecar.begin_writes(uuid);
drop function plugin_sidecar.number_external_writes(uuid, int);
drop function plugin_sidecar.log_external_truncate();
drop function plugin_sidecar.log_external_delete();
drop function plugin_sidecar.log_external_update();
drop function plugin_sidecar.log_external_insert();
drop function plugin_sidecar.note_trigger_fault(text);
drop table plugin_sidecar.trigger_faults;
drop table plugin_sidecar.external_revisions;
drop sequence plugin_sidecar.external_write_ids;
drop table plugin_sidecar.external_writes;
drop table plugin_sidecar.plugin_revisions;
drop function plugin_sidecar.entry_bytes(text, text, text, jsonb);
drop function plugin_sidecar.value_bytes(jsonb);
drop function plugin_sidecar.large_value_bytes(jsonb);
