-- How the sidecar writes a batch of nothing but Sets without conditions, which is most of what plugins
-- do. Nothing about them is to be judged, each succeeds: so one statement reads what is there, writes all
-- of them and counts, where write_entries (0003) looks at them one after the other.

-- Up Migration

-- As write_entries, for Sets of different entries that have no condition, no request id and no keep_ttl, and
-- return no previous value, of a plugin without quotas. p_value is a JSON array of the values. p_ttl_us is an
-- array that is empty when none has a time to live.
--
-- Answers one row, as answer_rows does: outcomes (1 where there was an entry, otherwise 0) and revisions.
-- No rows when settle_external_writes is to be called first. Raises what write_entries does.
create function plugin_sidecar.set_entries(
  p_plugin uuid, p_lane uuid, p_batch bigint, p_kind text[], p_id text[], p_namespace text[], p_key text[],
  p_value jsonb, p_ttl_us bigint[])
returns table (
  ord int, outcomes smallint[], revisions bigint[], value text, previous text, meta text)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_sort = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  -- The plugin's counters, and the entry of a caller alone, as they were.
  v_counter record;
  v_now timestamptz;
  v_old record;
  -- The answers, and what becomes of the counters.
  v_outcomes smallint[];
  v_revisions bigint[];
  v_new_entries bigint;
  v_more_bytes bigint;
  v_bytes bigint;
  v_missing bigint;
  -- The stamps of external writers that are overwritten.
  v_write_ids uuid[];
begin
  v_counter := plugin_sidecar.begin_writes(p_plugin);
  if v_counter.revision is null then
    return;
  end if;
  v_now := v_counter.begun_at;

  if cardinality(p_key) = 1 and p_id[1] is not null then
    -- A caller alone: the statement for many takes several times as long to start as these do.
    select s.ctid as place,
           case when s.sidecar_expires_at is null or s.sidecar_expires_at > v_now
                then coalesce(s.sidecar_created_at, s.updated_at) end as created_at,
           coalesce(case when s.sidecar_write_id is null then s.sidecar_bytes else
             (select x.bytes from plugin_sidecar.external_revisions x
               where x.plugin_id = p_plugin and x.stamp = s.sidecar_write_id) end,
             plugin_sidecar.entry_bytes(s.scope_id, s.namespace, s.state_key, s.value_json)) as bytes,
           s.sidecar_write_id as write_id
      into v_old
      from state_schema.plugin_state s
     where s.plugin_id = p_plugin and s.scope_kind = p_kind[1] and s.scope_id = p_id[1]
       and s.namespace = p_namespace[1] and s.state_key >= p_key[1] and s.state_key <= p_key[1]
     order by s.state_key limit 1;
    v_bytes := plugin_sidecar.entry_bytes(p_id[1], p_namespace[1], p_key[1], p_value -> 0);
    if v_old.place is null then
      insert into state_schema.plugin_state
             (plugin_id, scope_kind, scope_id, namespace, state_key, value_json, sidecar_revision,
              sidecar_write_id, sidecar_created_at, updated_at, sidecar_expires_at, sidecar_bytes)
      values (p_plugin, p_kind[1], p_id[1], p_namespace[1], p_key[1], p_value -> 0, v_counter.revision + 1, null,
              v_now, v_now, v_now + p_ttl_us[1] * interval '1 microsecond', v_bytes);
    else
      update state_schema.plugin_state s
         set value_json = p_value -> 0, sidecar_revision = v_counter.revision + 1, sidecar_write_id = null,
             sidecar_created_at = coalesce(v_old.created_at, v_now), updated_at = v_now,
             sidecar_expires_at = v_now + p_ttl_us[1] * interval '1 microsecond', sidecar_bytes = v_bytes
       where (s.plugin_id = p_plugin) is true and s.ctid = v_old.place;
      if not found then
        raise exception 'an entry went away' using errcode = 'serialization_failure';
      end if;
    end if;
    v_outcomes := array[(v_old.created_at is not null)::int::smallint];
    v_revisions := array[v_counter.revision + 1];
    v_new_entries := (v_old.place is null)::int;
    v_more_bytes := v_bytes - coalesce(v_old.bytes, 0);
    v_write_ids := array[v_old.write_id];
  else
    -- Rows come in the order of the names: a lateral subquery with a limit can only be a nested loop.
    with wanted as materialized (
      select w.kind, w.id, w.namespace, w.key, w.value, v_counter.revision + w.ord as revision,
             plugin_sidecar.entry_bytes(w.id, w.namespace, w.key, w.value) as bytes,
             v_now + w.ttl_us * interval '1 microsecond' as expires_at,
             s.place, s.created_at, s.write_id,
             case when s.place is null then 0 else coalesce(case when s.write_id is null then s.bytes else
               (select x.bytes from plugin_sidecar.external_revisions x
                 where x.plugin_id = p_plugin and x.stamp = s.write_id) end,
               plugin_sidecar.entry_bytes(w.id, w.namespace, w.key, s.value_json)) end as old_bytes
        from rows from (unnest(p_kind), unnest(p_id), unnest(p_namespace), unnest(p_key),
                        jsonb_array_elements(p_value), unnest(p_ttl_us))
             with ordinality as w (kind, id, namespace, key, value, ttl_us, ord)
        left join lateral (
          (select s.ctid as place,
                  case when s.sidecar_expires_at is null or s.sidecar_expires_at > v_now
                       then coalesce(s.sidecar_created_at, s.updated_at) end as created_at,
                  s.sidecar_bytes as bytes, s.sidecar_write_id as write_id, s.value_json
             from state_schema.plugin_state s
            where w.id is not null
              and s.plugin_id = p_plugin and s.scope_kind = w.kind and s.scope_id = w.id
              and s.namespace = w.namespace and s.state_key >= w.key and s.state_key <= w.key
            order by s.state_key limit 1)
          union all
          (select s.ctid as place,
                  case when s.sidecar_expires_at is null or s.sidecar_expires_at > v_now
                       then coalesce(s.sidecar_created_at, s.updated_at) end as created_at,
                  s.sidecar_bytes as bytes, s.sidecar_write_id as write_id, s.value_json
             from state_schema.plugin_state s
            where w.id is null
              and s.plugin_id = p_plugin and s.scope_kind = w.kind and s.scope_id is null
              and s.namespace = w.namespace and s.state_key >= w.key and s.state_key <= w.key
            order by s.scope_id, s.state_key limit 1)
        ) s on true
    ), updated as (
      update state_schema.plugin_state s
         set value_json = w.value, sidecar_revision = w.revision, sidecar_write_id = null,
             sidecar_created_at = coalesce(w.created_at, v_now), updated_at = v_now,
             sidecar_expires_at = w.expires_at, sidecar_bytes = w.bytes
        from wanted w
       where w.place is not null and (s.plugin_id = p_plugin) is true and s.ctid = w.place
      returning 1
    ), inserted as (
      insert into state_schema.plugin_state
             (plugin_id, scope_kind, scope_id, namespace, state_key, value_json, sidecar_revision,
              sidecar_write_id, sidecar_created_at, updated_at, sidecar_expires_at, sidecar_bytes)
      select p_plugin, w.kind, w.id, w.namespace, w.key, w.value, w.revision, null, v_now, v_now,
             w.expires_at, w.bytes
        from wanted w
       where w.place is null
      returning 1
    )
    select array_agg((w.created_at is not null)::int::smallint), array_agg(w.revision),
           count(*) filter (where w.place is null), sum(w.bytes - w.old_bytes),
           count(*) - (select count(*) from updated) - (select count(*) from inserted),
           array_agg(w.write_id) filter (where w.write_id is not null)
      into v_outcomes, v_revisions, v_new_entries, v_more_bytes, v_missing, v_write_ids
      from wanted w;
    if v_missing > 0 then
      raise exception 'an entry went away' using errcode = 'serialization_failure';
    end if;
  end if;

  if v_write_ids[1] is not null then
    delete from plugin_sidecar.external_revisions x
     where x.plugin_id = p_plugin and x.stamp = any (v_write_ids);
  end if;
  perform plugin_sidecar.require_numbered(
    p_plugin, v_counter.external_xmax, v_counter.external_open, p_kind, p_id, p_namespace, p_key);
  update plugin_sidecar.plugin_revisions r
     set revision = v_counter.revision + cardinality(p_key), entries = v_counter.entries + v_new_entries,
         bytes = v_counter.bytes + v_more_bytes
   where r.plugin_id = p_plugin;
  perform plugin_sidecar.keep_answer(p_plugin, p_lane, p_batch, v_outcomes, v_revisions, null, v_now);
  ord := 0;
  outcomes := v_outcomes;
  revisions := v_revisions;
  return next;
end $$;

revoke execute on function plugin_sidecar.set_entries(
  uuid, uuid, bigint, text[], text[], text[], text[], jsonb, bigint[]) from public;

-- Down Migration

drop function plugin_sidecar.set_entries(
  uuid, uuid, bigint, text[], text[], text[], text[], jsonb, bigint[]);
