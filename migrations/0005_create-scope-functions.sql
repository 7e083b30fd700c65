-- What the sidecar does to, and asks about, a scope and namespace as a whole.
--
-- As in 0004, the functions forbid sequential scans and sorts and ask for rows in an index's order, so
-- that a plan made while the table was small, or without statistics, is the right one later too.

-- Up Migration

-- One step of removing a range of keys of one scope and namespace: the next p_limit entries in byte
-- order of keys, or fewer that have p_max_bytes together.
--
-- The range is p_from (null: from the first) up to but not including p_before (null: to the last). How
-- far the request has come is remembered under its id, in the step's own transaction. So a step whose
-- answer was lost is simply asked for again, and so is a request that was given up half-way: it goes on
-- after the last key, and one that has ended answers the same once more. An unfinished one is remembered
-- for an hour at least, so that no pause between two steps is too long.
--
-- Answers how many entries the request has removed so far, whether it has come to the end of its range,
-- and the plugin's revision after the last step; is_reused alone when the id is another request's. No
-- rows when the plugin has no counter. Entries whose time is over are removed too, as the sweep would:
-- they take a revision, but for the caller they weren't there, and aren't counted. Raises
-- lock_not_available when somebody else holds one of the entries.
create function plugin_sidecar.delete_range(
  p_plugin uuid, p_kind text, p_id text, p_namespace text, p_from text, p_before text, p_limit int,
  p_max_bytes bigint, p_request_id uuid, p_fingerprint text, p_remember_us bigint)
returns table (is_reused boolean, deleted bigint, ended boolean, revision bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_sort = off
as $$
#variable_conflict use_column
declare
  v_counter record;
  v_now timestamptz;
  v_revision bigint;
  v_remembered record;
  v_deleted bigint := 0;
  v_last text;
  v_ended boolean := true;
  v_entry record;
  v_places tid[] := '{}';
  v_keys text[] := '{}';
  -- The stamps of external writers, null of others.
  v_write_ids uuid[] := '{}';
  v_count bigint := 0;
  v_bytes bigint := 0;
begin
  v_counter := plugin_sidecar.begin_writes(p_plugin);
  if v_counter.revision is null then
    return;
  end if;
  v_revision := v_counter.revision;
  v_now := v_counter.begun_at;

  select r.fingerprint, r.revision, r.result[1] as result into v_remembered
    from plugin_sidecar.requests r
   where r.plugin_id = p_plugin and r.request_id = p_request_id and r.expires_at > v_now;
  if found then
    if v_remembered.fingerprint <> p_fingerprint then
      return query select true, 0::bigint, true, v_revision;
      return;
    end if;
    v_deleted := (v_remembered.result ->> 'deleted')::bigint;
    if (v_remembered.result ->> 'ended')::boolean then
      return query select false, v_deleted, true, v_remembered.revision[1];
      return;
    end if;
    v_last := v_remembered.result ->> 'last_key';
  end if;

  for v_entry in execute format($query$
      select s.ctid as place, s.state_key as key, s.sidecar_expires_at is null or s.sidecar_expires_at > $1 as is_there,
             coalesce(case when s.sidecar_write_id is null then s.sidecar_bytes else
               (select x.bytes from plugin_sidecar.external_revisions x
                 where x.plugin_id = $2 and x.stamp = s.sidecar_write_id) end,
               plugin_sidecar.entry_bytes(s.scope_id, s.namespace, s.state_key, s.value_json)) as size,
             s.sidecar_write_id as write_id
        from state_schema.plugin_state s
       where s.plugin_id = $2 and s.scope_kind = $3 and s.scope_id %1$s and s.namespace = $5
         and s.state_key collate "C" %2$s $6
         %3$s
       order by s.scope_id, s.state_key collate "C"
       limit $8$query$,
      case when p_id is null then 'is null' else '= $4' end,
      case when v_last is null then '>=' else '>' end,
      case when p_before is not null then 'and s.state_key collate "C" < $7' end)
    using v_now, p_plugin, p_kind, p_id, p_namespace, coalesce(v_last, p_from, ''), p_before, p_limit
  loop
    v_places := v_places || v_entry.place;
    v_keys := v_keys || v_entry.key;
    v_write_ids := v_write_ids || v_entry.write_id;
    v_last := v_entry.key;
    v_bytes := v_bytes + v_entry.size;
    v_deleted := v_deleted + v_entry.is_there::int;
    v_ended := cardinality(v_places) < p_limit and v_bytes < p_max_bytes;
    exit when not v_ended;
  end loop;

  if cardinality(v_places) > 0 then
    delete from state_schema.plugin_state s where (s.plugin_id = p_plugin) is true and s.ctid = any (v_places);
    get diagnostics v_count = row_count;
    if v_count <> cardinality(v_places) then
      raise exception 'an entry went away' using errcode = 'serialization_failure';
    end if;
    v_revision := v_revision + v_count;
    update plugin_sidecar.plugin_revisions r
       set revision = v_revision, entries = r.entries - v_count, bytes = r.bytes - v_bytes
     where r.plugin_id = p_plugin;
    delete from plugin_sidecar.external_revisions x
     where x.plugin_id = p_plugin and x.stamp = any (array_remove(v_write_ids, null));
  end if;
  perform plugin_sidecar.require_numbered(
    p_plugin, v_counter.external_xmax, v_counter.external_open, array_fill(p_kind, array[v_count::int]),
    array_fill(p_id, array[v_count::int]), array_fill(p_namespace, array[v_count::int]), v_keys);
  -- An entry that somebody else removed before we looked came before us.
  if exists (select from plugin_sidecar.external_writes w
              where w.plugin_id = p_plugin and w.xact >= v_counter.external_xmax and w.kind in ('DELETE', 'TRUNCATE')
                and (w.kind = 'TRUNCATE'
                     or w.scope_kind = p_kind and w.scope_id is not distinct from p_id and w.namespace = p_namespace))
     or v_counter.external_open <> '{}'
        and exists (select from plugin_sidecar.external_writes w
                     where w.plugin_id = p_plugin and w.xact = any (v_counter.external_open)
                       and w.kind in ('DELETE', 'TRUNCATE')
                       and (w.kind = 'TRUNCATE'
                            or w.scope_kind = p_kind and w.scope_id is not distinct from p_id
                               and w.namespace = p_namespace)) then
    raise exception 'an external write came between' using errcode = 'serialization_failure';
  end if;
  perform plugin_sidecar.remember_request(
    p_plugin, p_request_id, p_fingerprint,
    v_now + interval '1 microsecond' * case when v_ended then p_remember_us
                                            else greatest(p_remember_us, 3600000000) end,
    array[1]::smallint[], array[v_revision],
    array[jsonb_build_object('deleted', v_deleted, 'last_key', v_last, 'ended', v_ended)]);
  return query select false, v_deleted, v_ended, v_revision;
end $$;

-- Reads a page of the places (scope and namespace) that hold entries, in one snapshot: by the order of
-- p_kinds, and within a kind by scope id and namespace in byte order. Only places that a request can
-- name: a foreign writer may have stored others.
--
-- The page begins in the first of p_kinds after (p_id, p_namespace), both null for its first place. It
-- ends after p_limit places, or after that whose entries made it p_max_entries: each place's are
-- counted, and a page shouldn't take long. It goes from place to place by index (50 µs a place and 1 µs
-- an entry), and never reads those before it: of 1,000,000 entries in 1,000 namespaces a page of 100
-- takes 0.1 s.
--
-- Answers the places, and then a row without a kind, whose revision is the plugin's and whose is_more
-- says whether there are more places. No rows when settle_external_writes is to be called first.
create function plugin_sidecar.list_scopes(
  p_plugin uuid, p_kinds text[], p_id text, p_namespace text, p_limit int, p_max_entries bigint)
returns table (
  kind text, id text, namespace text, entries bigint, bytes bigint, revision bigint, is_more boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_sort = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_revision bigint;
  v_kind text;
  v_id text := p_id;
  v_namespace text := coalesce(p_namespace, '');
  -- Null while entries are counted; 1 once the page is full, to see whether there is one more.
  v_most bigint;
  v_places int := 0;
  v_total bigint := 0;
begin
  select r.revision into v_revision
    from plugin_sidecar.plugin_revisions r
   where r.plugin_id = p_plugin
     and exists (select from state_schema.plugins p where p.id = p_plugin)
     and r.external_xmax <= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
     and not (exists (select from plugin_sidecar.external_writes u
                       where u.plugin_id = p_plugin and u.xact >= r.external_xmax)
              or r.external_open <> '{}'
                 and exists (select from plugin_sidecar.external_writes u
                              where u.plugin_id = p_plugin and u.xact = any (r.external_open)));
  if not found then
    return;
  end if;
  is_more := false;
  <<kinds>>
  foreach v_kind in array p_kinds loop
    loop
      if v_kind = 'instance' then
        select s.namespace into v_namespace from state_schema.plugin_state s
         where s.plugin_id = p_plugin and s.scope_kind = v_kind and s.scope_id is null
           and s.namespace collate "C" > v_namespace
         order by s.scope_id collate "C", s.namespace collate "C" limit 1;
        exit when not found;
        select count(*), coalesce(sum(e.size), 0) into entries, bytes
          from (select coalesce(case when s.sidecar_write_id is null then s.sidecar_bytes else
                         (select x.bytes from plugin_sidecar.external_revisions x
                           where x.plugin_id = p_plugin and x.stamp = s.sidecar_write_id) end,
                         plugin_sidecar.entry_bytes(s.scope_id, s.namespace, s.state_key, s.value_json)) as size
                  from state_schema.plugin_state s
                 where s.plugin_id = p_plugin and s.scope_kind = v_kind and s.scope_id is null
                   and s.namespace = v_namespace
                   and (s.sidecar_expires_at is null or s.sidecar_expires_at > statement_timestamp())
                 order by s.scope_id, s.state_key limit v_most) e;
      else
        -- U+0001 is the least an id can begin with: before it is only the empty id.
        select s.scope_id, s.namespace into v_id, v_namespace from state_schema.plugin_state s
         where s.plugin_id = p_plugin and s.scope_kind = v_kind
           and (s.scope_id collate "C", s.namespace collate "C") > (coalesce(v_id, U&'\0001'), v_namespace)
         order by s.scope_id collate "C", s.namespace collate "C" limit 1;
        exit when not found;
        continue when v_namespace = '';
        select count(*), coalesce(sum(e.size), 0) into entries, bytes
          from (select coalesce(case when s.sidecar_write_id is null then s.sidecar_bytes else
                         (select x.bytes from plugin_sidecar.external_revisions x
                           where x.plugin_id = p_plugin and x.stamp = s.sidecar_write_id) end,
                         plugin_sidecar.entry_bytes(s.scope_id, s.namespace, s.state_key, s.value_json)) as size
                  from state_schema.plugin_state s
                 where s.plugin_id = p_plugin and s.scope_kind = v_kind and s.scope_id = v_id
                   and s.namespace = v_namespace
                   and (s.sidecar_expires_at is null or s.sidecar_expires_at > statement_timestamp())
                 order by s.state_key limit v_most) e;
      end if;
      continue when entries = 0;
      if v_most = 1 then
        is_more := true;
        exit kinds;
      end if;
      kind := v_kind;
      id := v_id;
      namespace := v_namespace;
      return next;
      v_places := v_places + 1;
      v_total := v_total + entries;
      if v_places >= p_limit or v_total >= p_max_entries then
        v_most := 1;
      end if;
    end loop;
    v_id := null;
    v_namespace := '';
  end loop;

  return query
    select null::text, null::text, null::text, null::bigint, null::bigint, v_revision, is_more;
end $$;

-- Whoever serves is granted them by name: see docs/database.md.
revoke execute on all functions in schema plugin_sidecar from public;

-- Down Migration

drop function plugin_sidecar.list_scopes(uuid, text[], text, text, int, bigint);
drop function plugin_sidecar.delete_range(uuid, text, text, text, text, text, int, bigint, uuid, text, bigint);
