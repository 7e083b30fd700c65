-- How the sidecar reads an entry that nobody else asks for at the same time: in a tenth less time than by
-- read_place (0010), which begins with what many keys need.

-- Up Migration

-- As read_place, for one key.
create function plugin_sidecar.read_entry(
  p_plugin uuid, p_kind text, p_id text, p_namespace text, p_key text)
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
  if p_id is not null then
    return query
    select case when octet_length(e.value) <= 65536 then e.value end, e.revision,
           plugin_sidecar.microseconds(coalesce(e.created_at, e.updated_at)),
           plugin_sidecar.microseconds(e.updated_at), plugin_sidecar.microseconds(e.expires_at),
           r.revision
      from plugin_sidecar.plugin_revisions r
      left join lateral (
        select case when pg_column_compression(s.value_json) is null and pg_column_size(s.value_json) <= 8192
                    then s.value_json::text end as value,
               greatest(r.base_revision, case when s.sidecar_write_id is null then s.sidecar_revision else
                 (select x.revision from plugin_sidecar.external_revisions x
                   where x.plugin_id = p_plugin and x.stamp = s.sidecar_write_id) end) as revision,
               s.sidecar_created_at as created_at, s.updated_at, s.sidecar_expires_at as expires_at
          from state_schema.plugin_state s
         where s.plugin_id = p_plugin and s.scope_kind = p_kind and s.scope_id = p_id
           and s.namespace = p_namespace and s.state_key >= p_key and s.state_key <= p_key
           and (s.sidecar_expires_at is null or s.sidecar_expires_at > statement_timestamp())
         order by s.state_key limit 1
      ) e on true
     where r.plugin_id = p_plugin
       and exists (select from state_schema.plugins p where p.id = p_plugin)
       and r.external_xmax <= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
       and not (exists (select from plugin_sidecar.external_writes u
                         where u.plugin_id = p_plugin and u.xact >= r.external_xmax)
                or r.external_open <> '{}'
                   and exists (select from plugin_sidecar.external_writes u
                                where u.plugin_id = p_plugin and u.xact = any (r.external_open)));
  else
    return query
    select case when octet_length(e.value) <= 65536 then e.value end, e.revision,
           plugin_sidecar.microseconds(coalesce(e.created_at, e.updated_at)),
           plugin_sidecar.microseconds(e.updated_at), plugin_sidecar.microseconds(e.expires_at),
           r.revision
      from plugin_sidecar.plugin_revisions r
      left join lateral (
        select case when pg_column_compression(s.value_json) is null and pg_column_size(s.value_json) <= 8192
                    then s.value_json::text end as value,
               greatest(r.base_revision, case when s.sidecar_write_id is null then s.sidecar_revision else
                 (select x.revision from plugin_sidecar.external_revisions x
                   where x.plugin_id = p_plugin and x.stamp = s.sidecar_write_id) end) as revision,
               s.sidecar_created_at as created_at, s.updated_at, s.sidecar_expires_at as expires_at
          from state_schema.plugin_state s
         where s.plugin_id = p_plugin and s.scope_kind = p_kind and s.scope_id is null
           and s.namespace = p_namespace and s.state_key >= p_key and s.state_key <= p_key
           and (s.sidecar_expires_at is null or s.sidecar_expires_at > statement_timestamp())
         order by s.scope_id, s.state_key limit 1
      ) e on true
     where r.plugin_id = p_plugin
       and exists (select from state_schema.plugins p where p.id = p_plugin)
       and r.external_xmax <= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
       and not (exists (select from plugin_sidecar.external_writes u
                         where u.plugin_id = p_plugin and u.xact >= r.external_xmax)
                or r.external_open <> '{}'
                   and exists (select from plugin_sidecar.external_writes u
                                where u.plugin_id = p_plugin and u.xact = any (r.external_open)));
  end if;
end $$;

revoke execute on function plugin_sidecar.read_entry(uuid, text, text, text, text) from public;

-- Down Migration

drop function plugin_sidecar.read_entry(uuid, text, text, text, text);
