-- What the sidecar asks of the database that takes more than one statement but should take one
-- round trip.
--
-- Two traps in how they are planned, both of tables that grew since they were last analysed:
-- * a plan made while a table was small scans it whole;
-- * with no statistics, plugin_state_plugin_scope_idx looks cheaper than the unique index, and reads
--   the whole scope for each key (2,600 µs a key instead of 20 at 10,000 keys).
-- So a point lookup asks for the key as a range, in order, limit 1, and the functions forbid
-- sequential scans and sorts: what is left is the unique index. A setting costs 0.16 µs a call.

-- Up Migration

-- The slow way of value_text, for values that may be too large.
create function plugin_sidecar.large_value_text(p_value jsonb) returns text
language plpgsql immutable as $$
declare
  v_text text := p_value::text;
begin
  if octet_length(v_text) > 64 * 1024 * 1024 then
    raise exception 'the value is too large to be read' using errcode = 'program_limit_exceeded';
  end if;
  return v_text;
end $$;

-- A value as JSON text.
--
-- Refuses one whose text is larger than 64 MiB: another program may have stored it, or written
-- 1e131071 five hundred times, and a text of 512 MiB ends the process of a Node client. A value
-- stored uncompressed in 8 kB can't grow so large, and isn't asked. Neither question reads the value.
create function plugin_sidecar.value_text(p_value jsonb) returns text
language sql stable as $$
  select case when pg_column_compression(p_value) is null and pg_column_size(p_value) <= 8192
              then p_value::text
              else plugin_sidecar.large_value_text(p_value) end
$$;

-- Reads single entries of one plugin, all in one snapshot, each with the plugin's revision.
--
-- Answers a row for each entry asked for, in that order; where there is no such entry, its columns
-- are null. Of an entry with a large value (compressed, more than 8 kB, or 64 kB of text) the value is
-- null, and to be asked for by read_large_entries. No rows when settle_external_writes is to be called first.
create function plugin_sidecar.read_entries(
  p_plugin uuid, p_kind text[], p_id text[], p_namespace text[], p_key text[])
returns table (
  value text, revision bigint, created_us bigint, updated_us bigint, expires_us bigint,
  plugin_revision bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_sort = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
  -- Rows come in the order of the names: a lateral subquery with a limit can only be a nested loop.
  return query
  select case when octet_length(e.value) <= 65536 then e.value end, e.revision,
         plugin_sidecar.microseconds(coalesce(e.created_at, e.updated_at)),
         plugin_sidecar.microseconds(e.updated_at), plugin_sidecar.microseconds(e.expires_at), r.revision
    from plugin_sidecar.plugin_revisions r
   cross join rows from (unnest(p_kind), unnest(p_id), unnest(p_namespace), unnest(p_key))
         as w (kind, id, namespace, key)
    left join lateral (
      (select case when pg_column_compression(s.value_json) is null and pg_column_size(s.value_json) <= 8192
                   then s.value_json::text end as value,
              greatest(r.base_revision, case when s.sidecar_write_id is null then s.sidecar_revision else
                (select x.revision from plugin_sidecar.external_revisions x
                  where x.plugin_id = p_plugin and x.stamp = s.sidecar_write_id) end) as revision,
              s.sidecar_created_at as created_at, s.updated_at, s.sidecar_expires_at as expires_at
         from state_schema.plugin_state s
        where w.id is not null
          and s.plugin_id = p_plugin and s.scope_kind = w.kind and s.scope_id = w.id
          and s.namespace = w.namespace and s.state_key >= w.key and s.state_key <= w.key
          and (s.sidecar_expires_at is null or s.sidecar_expires_at > statement_timestamp())
        order by s.state_key limit 1)
      union all
      (select case when pg_column_compression(s.value_json) is null and pg_column_size(s.value_json) <= 8192
                   then s.value_json::text end as value,
              greatest(r.base_revision, case when s.sidecar_write_id is null then s.sidecar_revision else
                (select x.revision from plugin_sidecar.external_revisions x
                  where x.plugin_id = p_plugin and x.stamp = s.sidecar_write_id) end) as revision,
              s.sidecar_created_at as created_at, s.updated_at, s.sidecar_expires_at as expires_at
         from state_schema.plugin_state s
        where w.id is null
          and s.plugin_id = p_plugin and s.scope_kind = w.kind and s.scope_id is null
          and s.namespace = w.namespace and s.state_key >= w.key and s.state_key <= w.key
          and (s.sidecar_expires_at is null or s.sidecar_expires_at > statement_timestamp())
        order by s.scope_id, s.state_key limit 1)
    ) e on true
   where r.plugin_id = p_plugin
     and exists (select from state_schema.plugins p where p.id = p_plugin)
     and r.external_xmax <= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
     and not (exists (select from plugin_sidecar.external_writes u
                       where u.plugin_id = p_plugin and u.xact >= r.external_xmax)
              or r.external_open <> '{}'
                 and exists (select from plugin_sidecar.external_writes u
                              where u.plugin_id = p_plugin and u.xact = any (r.external_open)));
end $$;

-- The same for values of any size, one by one. Once the values have more than p_max_bytes together, the
-- entries after it are left out: to be asked for again.
create function plugin_sidecar.read_large_entries(
  p_plugin uuid, p_kind text[], p_id text[], p_namespace text[], p_key text[], p_max_bytes int)
returns table (
  value text, revision bigint, created_us bigint, updated_us bigint, expires_us bigint,
  plugin_revision bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_sort = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_entry record;
  v_bytes bigint := 0;
begin
  for v_entry in
    select e.value_json, e.revision, coalesce(e.created_at, e.updated_at) as created_at,
           e.updated_at, e.expires_at, r.revision as plugin_revision
      from plugin_sidecar.plugin_revisions r
     cross join rows from (unnest(p_kind), unnest(p_id), unnest(p_namespace), unnest(p_key))
           as w (kind, id, namespace, key)
      left join lateral (
        (select s.value_json,
                greatest(r.base_revision, case when s.sidecar_write_id is null then s.sidecar_revision else
                  (select x.revision from plugin_sidecar.external_revisions x
                    where x.plugin_id = p_plugin and x.stamp = s.sidecar_write_id) end) as revision,
                s.sidecar_created_at as created_at, s.updated_at, s.sidecar_expires_at as expires_at
           from state_schema.plugin_state s
          where w.id is not null
            and s.plugin_id = p_plugin and s.scope_kind = w.kind and s.scope_id = w.id
            and s.namespace = w.namespace and s.state_key >= w.key and s.state_key <= w.key
            and (s.sidecar_expires_at is null or s.sidecar_expires_at > statement_timestamp())
          order by s.state_key limit 1)
        union all
        (select s.value_json,
                greatest(r.base_revision, case when s.sidecar_write_id is null then s.sidecar_revision else
                  (select x.revision from plugin_sidecar.external_revisions x
                    where x.plugin_id = p_plugin and x.stamp = s.sidecar_write_id) end) as revision,
                s.sidecar_created_at as created_at, s.updated_at, s.sidecar_expires_at as expires_at
           from state_schema.plugin_state s
          where w.id is null
            and s.plugin_id = p_plugin and s.scope_kind = w.kind and s.scope_id is null
            and s.namespace = w.namespace and s.state_key >= w.key and s.state_key <= w.key
            and (s.sidecar_expires_at is null or s.sidecar_expires_at > statement_timestamp())
          order by s.scope_id, s.state_key limit 1)
      ) e on true
     where r.plugin_id = p_plugin
       and exists (select from state_schema.plugins p where p.id = p_plugin)
       and r.external_xmax <= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
       and not (exists (select from plugin_sidecar.external_writes u
                         where u.plugin_id = p_plugin and u.xact >= r.external_xmax)
                or r.external_open <> '{}'
                   and exists (select from plugin_sidecar.external_writes u
                                where u.plugin_id = p_plugin and u.xact = any (r.external_open)))
  loop
    exit when v_bytes > p_max_bytes;
    value := plugin_sidecar.value_text(v_entry.value_json);
    revision := v_entry.revision;
    created_us := plugin_sidecar.microseconds(v_entry.created_at);
    updated_us := plugin_sidecar.microseconds(v_entry.updated_at);
    expires_us := plugin_sidecar.microseconds(v_entry.expires_at);
    plugin_revision := v_entry.plugin_revision;
    v_bytes := v_bytes + coalesce(octet_length(value), 0);
    return next;
  end loop;
end $$;

-- Reads a page of one scope and namespace in byte order of keys, in one snapshot.
--
-- The range is p_from (itself included only if p_inclusive; null: from the first) up to but not
-- including p_before (null: to the last). The page ends after p_limit entries or before the entry
-- that would take it beyond p_max_bytes of scope id, namespace, key and value, but holds at least
-- one. Values stay in TOAST until their entry's turn has come.
--
-- Answers the entries, and then a row without a key, whose revision is the plugin's and whose
-- is_more says whether the range has more entries. No rows when settle_external_writes is to be called first.
create function plugin_sidecar.list_entries(
  p_plugin uuid, p_kind text, p_id text, p_namespace text, p_from text, p_inclusive boolean,
  p_before text, p_reverse boolean, p_keys_only boolean, p_limit int, p_max_bytes int)
returns table (
  key text, value text, revision bigint, created_us bigint, updated_us bigint, expires_us bigint,
  is_more boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_sort = off
as $$
#variable_conflict use_column
declare
  v_counter record;
  v_entry record;
  v_count int := 0;
  v_bytes bigint := 0;
begin
  select r.revision, r.base_revision into v_counter
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
  for v_entry in execute format($query$
      select s.state_key, case when not $1 then s.value_json end as value_json,
             greatest($10, case when s.sidecar_write_id is null then s.sidecar_revision else
               (select x.revision from plugin_sidecar.external_revisions x
                 where x.plugin_id = $2 and x.stamp = s.sidecar_write_id) end) as revision,
             coalesce(s.sidecar_created_at, s.updated_at) as created_at, s.updated_at,
             s.sidecar_expires_at as expires_at
        from state_schema.plugin_state s
       where s.plugin_id = $2 and s.scope_kind = $3 and s.scope_id %1$s and s.namespace = $5
         and ($6 is null or $7 or s.state_key <> $6)
         and (s.sidecar_expires_at is null or s.sidecar_expires_at > statement_timestamp())
         and s.state_key collate "C" >= coalesce($6, '')
         %2$s
       order by s.scope_id %3$s, s.state_key collate "C" %3$s
       limit $9 + 1$query$,
      case when p_id is null then 'is null' else '= $4' end,
      case when p_before is not null then 'and s.state_key collate "C" < $8' end,
      case when p_reverse then 'desc' end)
    using p_keys_only, p_plugin, p_kind, p_id, p_namespace, p_from, p_inclusive, p_before, p_limit,
      v_counter.base_revision
  loop
    value := plugin_sidecar.value_text(v_entry.value_json);
    v_bytes := v_bytes + coalesce(octet_length(p_id), 0) + octet_length(p_namespace)
                       + octet_length(v_entry.state_key) + coalesce(octet_length(value), 0);
    if v_count >= p_limit or (v_count > 0 and v_bytes > p_max_bytes) then
      is_more := true;
      exit;
    end if;
    v_count := v_count + 1;
    key := v_entry.state_key;
    revision := v_entry.revision;
    created_us := plugin_sidecar.microseconds(v_entry.created_at);
    updated_us := plugin_sidecar.microseconds(v_entry.updated_at);
    expires_us := plugin_sidecar.microseconds(v_entry.expires_at);
    return next;
  end loop;

  key := null;
  value := null;
  revision := v_counter.revision;
  created_us := null;
  updated_us := null;
  expires_us := null;
  return next;
end $$;

-- Whoever serves is granted them by name: see docs/database.md.
revoke execute on all functions in schema plugin_sidecar from public;

-- Down Migration

drop function plugin_sidecar.list_entries(uuid, text, text, text, text, boolean, text, boolean, boolean, int, int);
drop function plugin_sidecar.read_large_entries(uuid, text[], text[], text[], text[], int);
drop function plugin_sidecar.read_entries(uuid, text[], text[], text[], text[]);
drop function plugin_sidecar.value_text(jsonb);
drop function plugin_sidecar.large_value_text(jsonb);
