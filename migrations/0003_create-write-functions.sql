-- How the sidecar writes: a batch of calls is one statement, one transaction and one round trip.
--
-- The calls of a batch are independent: one that is refused changes nothing and takes no revision, the
-- others go on. They are judged one after the other, so each sees what those before it did, and the
-- order of the batch is the order of its revisions.

-- Up Migration

-- What was answered to a call with a request id, to be answered again when the call is repeated.
create table plugin_sidecar.requests (
  plugin_id   uuid not null,
  request_id  uuid not null,
  -- A digest of the request: another request under the same id is refused.
  fingerprint text not null,
  outcome     smallint[] not null,
  revision    bigint[] not null,
  result      jsonb[] not null,
  expires_at  timestamptz not null,
  primary key (plugin_id, request_id)
);
create index requests_expiry_idx on plugin_sidecar.requests (plugin_id, expires_at);

-- The last batch of each sidecar's lanes and its answer: a sidecar whose connection broke before the
-- answer came asks here. Whoever writes a batch's number first has it: the batch itself when it
-- commits, or the sidecar that gives it up, after which it can't commit any more.
create table plugin_sidecar.batches (
  plugin_id uuid not null,
  lane      uuid not null,
  batch     bigint not null,
  outcome   smallint[],
  revision  bigint[],
  result    jsonb[],
  ended_at  timestamptz not null,
  primary key (plugin_id, lane)
) with (fillfactor = 20);

-- Microseconds since 1970; null for infinity, which a foreign writer may have stored. Through a
-- double, which is exact to the microsecond until 2255, rather than the slower numeric. A statement calls it: all types
-- are exact, so that nobody's function or operator on the search path fits better than PostgreSQL's.
create function plugin_sidecar.microseconds(p_time timestamptz) returns bigint
language sql stable as $$
  select case when isfinite(p_time) then round(date_part('epoch'::text, p_time) * 1000000::float8)::bigint end
$$;

-- A target changed by a merge patch (RFC 7396). Recurses once for each level of objects in the patch,
-- which the sidecar bounds: PostgreSQL's stack ends at 566 levels (15) or 610 (18).
create function plugin_sidecar.merge_patch(p_target jsonb, p_patch jsonb) returns jsonb
language plpgsql immutable as $$
begin
  if jsonb_typeof(p_patch) <> 'object' then
    return p_patch;
  end if;
  if p_target is null or jsonb_typeof(p_target) <> 'object' then
    p_target := '{}';
  end if;
  return (
    select coalesce(jsonb_object_agg(
             coalesce(t.key, p.key),
             case when p.key is null then t.value
                  else plugin_sidecar.merge_patch(t.value, p.value) end), '{}')
      from jsonb_each(p_target) t full join jsonb_each(p_patch) p on p.key = t.key
     where p.key is null or p.value <> 'null');
end $$;

-- What an Update makes of a value (null: there is none). fault is null, or the outcome of a refusal;
-- with fault 2 nothing changes, because the item is there already.
create function plugin_sidecar.changed_value(
  p_operation text, p_old jsonb, p_argument jsonb, out value jsonb, out fault smallint)
language plpgsql immutable as $$
declare
  v_number numeric;
  v_max_length int;
begin
  case p_operation
    when 'increment' then
      if jsonb_typeof(p_old) <> 'number' then
        fault := -3;
        return;
      end if;
      v_number := coalesce(p_old, p_argument -> 'initial', '0')::numeric + (p_argument -> 'by')::numeric;
      if p_argument ? 'clamp' then
        v_number := greatest(v_number, (p_argument -> 'min')::numeric);
        v_number := least(v_number, (p_argument -> 'max')::numeric);
      elsif v_number < (p_argument -> 'min')::numeric or v_number > (p_argument -> 'max')::numeric then
        fault := -4;
        return;
      end if;
      value := to_jsonb(v_number);
    when 'merge_patch' then
      value := plugin_sidecar.merge_patch(p_old, p_argument);
    when 'append' then
      if jsonb_typeof(p_old) <> 'array' then
        fault := -3;
        return;
      end if;
      if p_argument ? 'unique'
         and exists (select from jsonb_array_elements(p_old) e where e.value = p_argument -> 'item') then
        value := p_old;
        fault := 2;
        return;
      end if;
      value := coalesce(p_old, '[]') || jsonb_build_array(p_argument -> 'item');
      v_max_length := (p_argument -> 'max_length')::int;
      if jsonb_array_length(value) > v_max_length then
        select jsonb_agg(e.item order by e.ord) into value
          from jsonb_array_elements(value) with ordinality e (item, ord)
         where e.ord > jsonb_array_length(value) - v_max_length;
      end if;
  end case;
exception when numeric_value_out_of_range then
  fault := -4;
end $$;

-- Removes entries whose time is over, those first whose time was over first: at most p_limit, and no
-- more once they have p_max_bytes together, because their values must be removed from TOAST too (32 MiB
-- take 0.1 s). Says how many and how large they were, and whether a bound stopped it. For whoever holds
-- the plugin's counter, from whose revision on they are numbered.
--
-- Waits for nobody: an entry that somebody else holds is left, it may be about to be renewed. One that
-- was renewed a moment ago is looked at again once it is locked, and left too.
create function plugin_sidecar.remove_expired(
  p_plugin uuid, p_now timestamptz, p_limit int, p_max_bytes bigint default 64 * 1024 * 1024,
  out entries bigint, out bytes bigint, out more boolean)
language plpgsql
set enable_seqscan = off
set enable_sort = off
as $$
begin
  with expired as materialized (
    select s.ctid as place,
           coalesce(s.sidecar_bytes,
             plugin_sidecar.entry_bytes(s.scope_id, s.namespace, s.state_key, s.value_json)) as size
      from state_schema.plugin_state s
     where s.plugin_id = p_plugin and s.sidecar_expires_at <= p_now
     order by s.sidecar_expires_at limit p_limit
       for update skip locked
  ), chosen as materialized (
    select c.place
      from (select e.place, e.size, sum(e.size) over (rows unbounded preceding) as total from expired e) c
     where c.total - c.size < p_max_bytes
  ), removed as (
    delete from state_schema.plugin_state s
     where (s.plugin_id = p_plugin) is true and s.ctid = any (array(select c.place from chosen c))
    returning coalesce(s.sidecar_bytes,
                plugin_sidecar.entry_bytes(s.scope_id, s.namespace, s.state_key, s.value_json)) as size
  )
  select count(*), coalesce(sum(r.size), 0),
         (select count(*) from expired) >= p_limit
         or (select count(*) from expired) > (select count(*) from chosen)
    into entries, bytes, more from removed r;
end $$;

-- Keeps the answer to a call with a request id.
create function plugin_sidecar.remember_request(
  p_plugin uuid, p_request_id uuid, p_fingerprint text, p_expires timestamptz, p_outcome smallint[],
  p_revision bigint[], p_result jsonb[]) returns void
language sql as $$
  insert into plugin_sidecar.requests as r
         (plugin_id, request_id, fingerprint, outcome, revision, result, expires_at)
  values (p_plugin, p_request_id, p_fingerprint, p_outcome, p_revision, p_result, p_expires)
  on conflict (plugin_id, request_id) do update
     set fingerprint = excluded.fingerprint, outcome = excluded.outcome, revision = excluded.revision,
         result = excluded.result, expires_at = excluded.expires_at
$$;

-- Keeps the answer of a batch, for a sidecar whose connection broke before it came. Raises PS002 when settle_batch
-- gave the batch up.
create function plugin_sidecar.keep_answer(
  p_plugin uuid, p_lane uuid, p_batch bigint, p_outcome smallint[], p_revision bigint[], p_result jsonb[],
  p_ended timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into plugin_sidecar.batches as b (plugin_id, lane, batch, outcome, revision, result, ended_at)
  values (p_plugin, p_lane, p_batch, p_outcome, p_revision, p_result, p_ended)
  on conflict (plugin_id, lane) do update
     set batch = excluded.batch, outcome = excluded.outcome, revision = excluded.revision, result = excluded.result,
         ended_at = excluded.ended_at
   where b.batch < excluded.batch;
  if not found then
    raise exception 'the batch was given up' using errcode = 'PS002';
  end if;
end $$;

-- The answers of a batch as rows: first one with all outcomes and revisions, then one for each
-- operation that has more to say.
create function plugin_sidecar.answer_rows(
  p_outcome smallint[], p_revision bigint[], p_result jsonb[])
returns table (
  ord int, outcomes smallint[], revisions bigint[], value text, previous text, meta text)
language sql immutable
rows 1 as $$
  select 0, p_outcome, p_revision, null::text, null::text, null::text
  union all
  select r.ord::int, null, null,
         (r.result -> 'value')::text, (r.result -> 'previous')::text, (r.result -> 'meta')::text
    from unnest(p_result) with ordinality r (result, ord)
   where r.result is not null
$$;

-- Applies a batch of calls of one plugin in one transaction.
--
-- In three steps: read what is there, all entries in one statement; judge the operations one after the
-- other, in memory; write what has become of each entry, in one statement each for updates, inserts and
-- deletes. So an entry that a batch changes many times is written once, and a call that fails whole is
-- undone by forgetting it. (An update, insert or delete for each operation took twice as long.)
--
-- p_kind, p_id, p_namespace and p_key name the entries, each once; p_wanted says of which the value is
-- needed. The other arrays have an element for each operation, with p_entry the place of its entry
-- in those four; of an array that is empty all elements are null. p_value is a JSON array with the
-- value of a set or the argument of a change. p_condition is null, -1 (there must be an entry), -2
-- (there must be none) or the revision it must have. p_run_end and p_run_atomic divide the
-- operations into runs: run n ends with operation p_run_end[n], and is one call that succeeds or fails
-- whole (atomic), or calls of one operation each. A request id stands at a call's first operation.
--
-- Answers as answer_rows says, by operation:
--   outcome 0   done; there was no such entry       revision: the operation's own; of one that
--           1   done; there was one                 changed nothing, and of a check, the plugin's
--           2   nothing to change: the item's there last
--          -1   condition not met by the entry      the entry's
--          -2   condition not met: no such entry
--          -3   the value is of another type        the entry's
--          -4   the result would be out of bounds   the entry's
--          -5   the result, or the call's answer,    the entry's; meta has size and limit
--               would be too large
--          -6   over the quota of entries           meta has used and asked
--          -7   over the quota of bytes             meta has used and asked
--          -8   request id used for another request
--          -9   not looked at: the answers before it are large enough for one batch
--         -10   undone or not done, because another operation of the same call failed
-- No rows when begin_writes has none. Raises PS002 when settle_batch gave the batch up, and
-- lock_not_available when somebody else holds one of its entries.
create function plugin_sidecar.write_entries(
  p_plugin uuid, p_lane uuid, p_batch bigint, p_run_end int[], p_run_atomic boolean[],
  p_kind text[], p_id text[], p_namespace text[], p_key text[], p_wanted boolean[],
  p_entry int[], p_operation text[], p_value jsonb, p_condition bigint[], p_ttl_us bigint[],
  p_keep_ttl boolean[], p_previous boolean[], p_request_id uuid[], p_fingerprint text[],
  p_remember_us bigint, p_max_value_bytes bigint, p_max_entries bigint, p_max_bytes bigint,
  p_max_result_bytes bigint)
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
  v_now timestamptz;
  -- The plugin's counters, as they were and as they become.
  v_counter record;
  v_revision bigint;
  v_entries bigint;
  v_bytes bigint;
  -- What is there, by entry. e_place: its row, which may be one whose time is over. e_writer: the
  -- operation that wrote it last, 0 for a delete, null for none.
  e_place tid[];
  e_exists boolean[];
  e_revision bigint[];
  e_bytes bigint[];
  e_expires timestamptz[];
  e_created timestamptz[];
  e_updated timestamptz[];
  e_value jsonb[];
  e_write_id uuid[];
  e_writer int[];
  -- The same before the call that is being judged, to go back to.
  v_before record;
  -- The answers, by operation, and the new values that aren't p_value's.
  v_count int := cardinality(p_entry);
  v_outcomes smallint[] := array_fill(null::smallint, array[v_count]);
  v_revisions bigint[] := array_fill(null::bigint, array[v_count]);
  v_results jsonb[] := array_fill(null::jsonb, array[v_count]);
  v_changed jsonb[] := array_fill(null::jsonb, array[v_count]);
  v_sizes bigint[];
  -- A caller alone, as most are: the statements for many take several times as long to start as those
  -- for one.
  v_is_lone boolean := v_count = 1 and p_id[1] is not null;
  v_result_bytes bigint := 0;
  -- The same before the call that is being judged, whose answer is bounded too.
  v_bytes_before bigint := 0;
  v_max_answer_bytes constant bigint := 64 * 1024 * 1024;
  v_updates boolean := false;
  v_inserts boolean := false;
  v_deletes boolean := false;
  -- Whether a request was remembered.
  v_keep boolean := false;
  v_missing bigint;
  -- Of one call.
  v_from int := 1;
  v_atomic boolean;
  v_failed boolean;
  v_judged boolean;
  v_remembered record;
  -- Of one operation.
  e int;
  v_operation text;
  v_outcome smallint;
  v_value jsonb;
  v_old jsonb;
  v_result jsonb;
  v_size bigint;
  v_expired record;
begin
  v_counter := plugin_sidecar.begin_writes(p_plugin);
  if v_counter.revision is null then
    return;
  end if;
  v_revision := v_counter.revision;
  v_entries := v_counter.entries;
  v_bytes := v_counter.bytes;
  v_now := v_counter.begun_at;

  -- What nobody sees any more shouldn't fill a quota.
  if v_entries + v_count > p_max_entries or v_bytes + pg_column_size(p_value) > p_max_bytes then
    v_expired := plugin_sidecar.remove_expired(p_plugin, v_now, 1000);
    v_revision := v_revision + v_expired.entries;
    v_entries := v_entries - v_expired.entries;
    v_bytes := v_bytes - v_expired.bytes;
  end if;

  if v_is_lone then
    select array[s.ctid], array[s.sidecar_expires_at is null or s.sidecar_expires_at > v_now],
           array[greatest(v_counter.base_revision, case when s.sidecar_write_id is null then s.sidecar_revision else
             (select x.revision from plugin_sidecar.external_revisions x
               where x.plugin_id = p_plugin and x.stamp = s.sidecar_write_id) end)],
           array[coalesce(case when s.sidecar_write_id is null then s.sidecar_bytes else
             (select x.bytes from plugin_sidecar.external_revisions x
               where x.plugin_id = p_plugin and x.stamp = s.sidecar_write_id) end,
             plugin_sidecar.entry_bytes(s.scope_id, s.namespace, s.state_key, s.value_json))],
           array[s.sidecar_expires_at], array[coalesce(s.sidecar_created_at, s.updated_at)], array[s.updated_at],
           array[case when p_wanted[1] then s.value_json end], array[s.sidecar_write_id]
      into e_place, e_exists, e_revision, e_bytes, e_expires, e_created, e_updated, e_value, e_write_id
      from state_schema.plugin_state s
     where s.plugin_id = p_plugin and s.scope_kind = p_kind[1] and s.scope_id = p_id[1]
       and s.namespace = p_namespace[1] and s.state_key >= p_key[1] and s.state_key <= p_key[1]
     order by s.state_key limit 1;
    if not found then
      e_exists := array[false];
      e_bytes := array[0];
    end if;
    v_sizes := array[plugin_sidecar.value_bytes(p_value -> 0)];
  else
    -- Rows come in the order of the names: a lateral subquery with a limit can only be a nested loop.
    select array_agg(s.place), array_agg(s.place is not null and (s.expires_at is null or s.expires_at > v_now)),
           array_agg(case when s.place is not null then greatest(v_counter.base_revision, case when s.write_id is null then s.revision else
             (select x.revision from plugin_sidecar.external_revisions x
               where x.plugin_id = p_plugin and x.stamp = s.write_id) end) end),
           array_agg(case when s.place is null then 0 else coalesce(case when s.write_id is null then s.bytes else
             (select x.bytes from plugin_sidecar.external_revisions x
               where x.plugin_id = p_plugin and x.stamp = s.write_id) end,
             plugin_sidecar.entry_bytes(w.id, w.namespace, w.key, s.value_json)) end),
           array_agg(s.expires_at), array_agg(coalesce(s.created_at, s.updated_at)), array_agg(s.updated_at),
           array_agg(case when w.wanted then s.value_json end), array_agg(s.write_id), array_agg(null::int)
      into e_place, e_exists, e_revision, e_bytes, e_expires, e_created, e_updated, e_value, e_write_id, e_writer
      from rows from (unnest(p_kind), unnest(p_id), unnest(p_namespace), unnest(p_key), unnest(p_wanted))
           as w (kind, id, namespace, key, wanted)
      left join lateral (
        (select s.ctid as place, s.sidecar_revision as revision, s.sidecar_write_id as write_id,
                s.sidecar_expires_at as expires_at, s.sidecar_created_at as created_at, s.updated_at,
                s.sidecar_bytes as bytes, s.value_json
           from state_schema.plugin_state s
          where w.id is not null
            and s.plugin_id = p_plugin and s.scope_kind = w.kind and s.scope_id = w.id
            and s.namespace = w.namespace and s.state_key >= w.key and s.state_key <= w.key
          order by s.state_key limit 1)
        union all
        (select s.ctid as place, s.sidecar_revision as revision, s.sidecar_write_id as write_id,
                s.sidecar_expires_at as expires_at, s.sidecar_created_at as created_at, s.updated_at,
                s.sidecar_bytes as bytes, s.value_json
           from state_schema.plugin_state s
          where w.id is null
            and s.plugin_id = p_plugin and s.scope_kind = w.kind and s.scope_id is null
            and s.namespace = w.namespace and s.state_key >= w.key and s.state_key <= w.key
          order by s.scope_id, s.state_key limit 1)
      ) s on true;
    v_sizes := array(select plugin_sidecar.value_bytes(v.value) from jsonb_array_elements(p_value) v);
  end if;

  for v_run in 1 .. cardinality(p_run_end) loop
    v_atomic := p_run_atomic[v_run];
    v_judged := true;
    v_failed := false;
    if v_atomic then
      v_before := row(v_revision, v_entries, v_bytes, e_exists, e_revision, e_bytes, e_expires, e_created, e_updated, e_writer);
    end if;

    <<operations>>
    for i in v_from .. p_run_end[v_run] loop
      if v_result_bytes > p_max_result_bytes and (i = v_from or not v_atomic) then
        for j in i .. p_run_end[v_run] loop
          v_outcomes[j] := -9;
        end loop;
        v_judged := false;
        exit operations;
      end if;

      if p_request_id[i] is not null then
        select r.* into v_remembered from plugin_sidecar.requests r
         where r.plugin_id = p_plugin and r.request_id = p_request_id[i] and r.expires_at > v_now;
        if found then
          for j in i .. case when v_atomic then p_run_end[v_run] else i end loop
            if v_remembered.fingerprint = p_fingerprint[i] then
              v_outcomes[j] := v_remembered.outcome[j - i + 1];
              v_revisions[j] := v_remembered.revision[j - i + 1];
              v_results[j] := v_remembered.result[j - i + 1];
            else
              v_outcomes[j] := -8;
            end if;
          end loop;
          v_judged := false;
          exit operations when v_atomic;
          continue operations;
        end if;
      end if;

      if i = v_from or not v_atomic then
        v_bytes_before := v_result_bytes;
      end if;
      e := p_entry[i];
      v_operation := p_operation[i];
      v_outcome := e_exists[e]::int;
      v_value := null;
      v_result := null;

      if p_condition[i] is not null
         and (case p_condition[i] when -1 then v_outcome = 0
                                  when -2 then v_outcome = 1
                                  else v_outcome = 0 or e_revision[e] <> p_condition[i] end) then
        v_outcome := v_outcome - 2;
        v_size := null;
      elsif v_operation = 'set' then
        v_size := v_sizes[i];
      elsif v_operation = 'delete' or v_operation = 'check' then
        v_size := null;
      else
        v_old := case when v_outcome = 1
                      then coalesce(v_changed[e_writer[e]], p_value -> (e_writer[e] - 1), e_value[e]) end;
        select c.value, coalesce(c.fault, v_outcome) into v_value, v_outcome
          from plugin_sidecar.changed_value(v_operation, v_old, p_value -> (i - 1)) c;
        -- The time to live may be what changes.
        if v_outcome = 2 and p_ttl_us[i] is not null and (p_keep_ttl[i] is not true or e_expires[e] is null) then
          v_outcome := 1;
        end if;
        v_size := plugin_sidecar.value_bytes(v_value);
        if v_size > p_max_value_bytes then
          v_outcome := -5;
          v_result := jsonb_build_object('meta', jsonb_build_object('size', v_size, 'limit', p_max_value_bytes));
        elsif v_outcome >= 0 then
          v_result := jsonb_build_object('value', v_value);
          v_result_bytes := v_result_bytes + v_size;
        end if;
      end if;
      if v_outcome > 0 and p_previous[i] then
        v_result_bytes := v_result_bytes + e_bytes[e];
      end if;
      if v_outcome >= 0 and v_result_bytes - v_bytes_before > v_max_answer_bytes then
        v_outcome := -5;
        v_result := jsonb_build_object('meta', jsonb_build_object(
          'size', v_result_bytes - v_bytes_before, 'limit', v_max_answer_bytes));
      end if;
      if v_size is not null and v_outcome >= 0 then
        v_size := v_size + coalesce(octet_length(p_id[e]), 0) + octet_length(p_namespace[e]) + octet_length(p_key[e]);
        if not v_atomic and v_outcome = 0 and v_entries >= p_max_entries
           and (e_place[e] is null or e_writer[e] is not null) then
          v_outcome := -6;
          v_result := jsonb_build_object('meta', jsonb_build_object('used', v_entries, 'asked', 1));
        elsif not v_atomic and v_size > e_bytes[e] and v_bytes + v_size - e_bytes[e] > p_max_bytes then
          v_outcome := -7;
          v_result := jsonb_build_object('meta', jsonb_build_object('used', v_bytes, 'asked', v_size - e_bytes[e]));
        end if;
      end if;

      if v_outcome < 0 then
        if v_outcome <> -2 and e_exists[e] then
          v_revisions[i] := e_revision[e];
        end if;
        v_failed := true;
      elsif v_operation = 'check' then
        v_revisions[i] := v_revision;
      else
        if v_outcome > 0 and p_previous[i] then
          v_old := coalesce(v_changed[e_writer[e]], p_value -> (e_writer[e] - 1), e_value[e]);
          v_result := coalesce(v_result, '{}') || jsonb_build_object('previous', v_old, 'meta', jsonb_build_object(
            'revision', e_revision[e],
            'created_us', plugin_sidecar.microseconds(e_created[e]),
            'updated_us', plugin_sidecar.microseconds(e_updated[e]),
            'expires_us', plugin_sidecar.microseconds(e_expires[e])));
        end if;
        if v_outcome <> 2 and (v_size is not null or v_outcome = 1) then
          v_revision := v_revision + 1;
          v_bytes := v_bytes - e_bytes[e];
          if v_size is null then
            v_deletes := true;
            v_entries := v_entries - 1;
            e_exists[e] := false;
            e_writer[e] := 0;
            e_bytes[e] := 0;
          else
            if e_place[e] is null then
              v_inserts := true;
            else
              v_updates := true;
            end if;
            -- A row whose time is over is counted until it is swept.
            if v_outcome = 0 then
              if e_place[e] is null or e_writer[e] is not null then
                v_entries := v_entries + 1;
              end if;
              e_exists[e] := true;
              e_created[e] := v_now;
              e_expires[e] := null;
            end if;
            if p_keep_ttl[i] is not true or e_expires[e] is null then
              e_expires[e] := v_now + p_ttl_us[i] * interval '1 microsecond';
            end if;
            v_changed[i] := v_value;
            e_writer[e] := i;
            e_bytes[e] := v_size;
            v_bytes := v_bytes + v_size;
          end if;
          e_revision[e] := v_revision;
          e_updated[e] := v_now;
        end if;
        v_revisions[i] := v_revision;
      end if;
      v_outcomes[i] := v_outcome;
      if v_result is not null then
        v_results[i] := v_result;
      end if;
      if p_request_id[i] is not null and not v_atomic and v_outcome >= 0 then
        perform plugin_sidecar.remember_request(
          p_plugin, p_request_id[i], p_fingerprint[i], v_now + p_remember_us * interval '1 microsecond',
          v_outcomes[i:i], v_revisions[i:i], v_results[i:i]);
        v_keep := true;
      end if;
    end loop;

    if v_atomic and v_judged then
      if not v_failed and v_entries > p_max_entries and v_entries > v_before.f2 then
        v_failed := true;
        v_outcomes[v_from] := -6;
        v_results[v_from] := jsonb_build_object('meta', jsonb_build_object(
          'used', v_before.f2, 'asked', v_entries - v_before.f2));
      elsif not v_failed and v_bytes > p_max_bytes and v_bytes > v_before.f3 then
        v_failed := true;
        v_outcomes[v_from] := -7;
        v_results[v_from] := jsonb_build_object('meta', jsonb_build_object(
          'used', v_before.f3, 'asked', v_bytes - v_before.f3));
      end if;
      if v_failed then
        v_revision := v_before.f1;
        v_entries := v_before.f2;
        v_bytes := v_before.f3;
        e_exists := v_before.f4;
        e_revision := v_before.f5;
        e_bytes := v_before.f6;
        e_expires := v_before.f7;
        e_created := v_before.f8;
        e_updated := v_before.f9;
        e_writer := v_before.f10;
        for i in v_from .. p_run_end[v_run] loop
          if v_outcomes[i] >= 0 then
            v_outcomes[i] := -10;
            v_results[i] := null;
          end if;
          -- As it is: an operation before may have given the entry a revision that never came to be.
          v_revisions[i] := case when e_exists[p_entry[i]] then e_revision[p_entry[i]] end;
        end loop;
      elsif p_request_id[v_from] is not null then
        perform plugin_sidecar.remember_request(
          p_plugin, p_request_id[v_from], p_fingerprint[v_from], v_now + p_remember_us * interval '1 microsecond',
          v_outcomes[v_from:p_run_end[v_run]], v_revisions[v_from:p_run_end[v_run]], v_results[v_from:p_run_end[v_run]]);
        v_keep := true;
      end if;
    end if;
    v_from := p_run_end[v_run] + 1;
  end loop;

  if v_is_lone and v_updates and e_writer[1] > 0 then
    update state_schema.plugin_state s
       set value_json = coalesce(v_changed[1], p_value -> 0), sidecar_revision = e_revision[1],
           sidecar_created_at = e_created[1], updated_at = v_now, sidecar_expires_at = e_expires[1],
           sidecar_bytes = e_bytes[1], sidecar_write_id = null
     where (s.plugin_id = p_plugin) is true and s.ctid = e_place[1];
    if not found then
      raise exception 'an entry went away' using errcode = 'serialization_failure';
    end if;
  elsif v_updates then
    with changed as materialized (
      select w.place, w.revision, w.expires, w.created, w.bytes,
             coalesce(v_changed[w.writer], p_value -> (w.writer - 1)) as value
        from rows from (unnest(e_place), unnest(e_writer), unnest(e_revision), unnest(e_expires), unnest(e_created), unnest(e_bytes))
             as w (place, writer, revision, expires, created, bytes)
       where w.place is not null and w.writer > 0
    ), updated as (
      update state_schema.plugin_state s
         set value_json = c.value, sidecar_revision = c.revision, sidecar_created_at = c.created, updated_at = v_now,
             sidecar_expires_at = c.expires, sidecar_bytes = c.bytes, sidecar_write_id = null
        from changed c
       where (s.plugin_id = p_plugin) is true and s.ctid = c.place
      returning 1)
    select (select count(*) from changed) - (select count(*) from updated) into v_missing;
    if v_missing > 0 then
      raise exception 'an entry went away' using errcode = 'serialization_failure';
    end if;
  end if;
  if v_deletes then
    delete from state_schema.plugin_state s
     using rows from (unnest(e_place), unnest(e_writer)) as w (place, writer)
     where w.writer = 0 and (s.plugin_id = p_plugin) is true and s.ctid = w.place;
    get diagnostics v_missing = row_count;
    if v_missing < (select count(*) from rows from (unnest(e_place), unnest(e_writer)) as w (place, writer)
                     where w.writer = 0 and w.place is not null) then
      raise exception 'an entry went away' using errcode = 'serialization_failure';
    end if;
  end if;
  if v_inserts then
    insert into state_schema.plugin_state
           (plugin_id, scope_kind, scope_id, namespace, state_key, value_json, sidecar_revision, sidecar_write_id,
            sidecar_created_at, updated_at, sidecar_expires_at, sidecar_bytes)
    select p_plugin, w.kind, w.id, w.namespace, w.key, coalesce(v_changed[w.writer], p_value -> (w.writer - 1)),
           w.revision, null, w.created, v_now, w.expires, w.bytes
      from rows from (unnest(p_kind), unnest(p_id), unnest(p_namespace), unnest(p_key), unnest(e_place),
                      unnest(e_writer), unnest(e_revision), unnest(e_created), unnest(e_expires), unnest(e_bytes))
           as w (kind, id, namespace, key, place, writer, revision, created, expires, bytes)
     where w.place is null and w.writer > 0;
  end if;
  if array_length(array_remove(e_write_id, null), 1) > 0 and (v_updates or v_deletes) then
    delete from plugin_sidecar.external_revisions x
     where x.plugin_id = p_plugin
       and x.stamp = any (array(select w.id from rows from (unnest(e_write_id), unnest(e_writer)) as w (id, writer)
                                    where w.writer is not null and w.id is not null));
  end if;
  perform plugin_sidecar.require_numbered(
    p_plugin, v_counter.external_xmax, v_counter.external_open, p_kind, p_id, p_namespace, p_key);
  if v_revision > v_counter.revision then
    update plugin_sidecar.plugin_revisions r
       set revision = v_revision, entries = v_entries, bytes = v_bytes
     where r.plugin_id = p_plugin;
  end if;
  if v_revision > v_counter.revision or v_keep then
    perform plugin_sidecar.keep_answer(p_plugin, p_lane, p_batch, v_outcomes, v_revisions, v_results, v_now);
  end if;
  return query select * from plugin_sidecar.answer_rows(v_outcomes, v_revisions, v_results);
end $$;

-- Ends the doubt about a batch whose answer didn't come: answers as write_entries did, if it was
-- committed. Otherwise it never will be, and the answer is a row with ord 0 and no outcomes.
create function plugin_sidecar.settle_batch(p_plugin uuid, p_lane uuid, p_batch bigint)
returns table (
  ord int, outcomes smallint[], revisions bigint[], value text, previous text, meta text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  insert into plugin_sidecar.batches as b (plugin_id, lane, batch, ended_at)
  values (p_plugin, p_lane, p_batch, clock_timestamp())
  on conflict (plugin_id, lane) do update
     set batch = excluded.batch, outcome = null, revision = null, result = null, ended_at = excluded.ended_at
   where b.batch < excluded.batch;
  return query
    select a.* from plugin_sidecar.batches b,
           plugin_sidecar.answer_rows(b.outcome, b.revision, b.result) a
     where b.plugin_id = p_plugin and b.lane = p_lane and b.batch = p_batch;
end $$;

-- One bounded step of removing a plugin's expired entries: p_limit, or 8 MiB of them. Says how many it removed, and
-- whether there may be more. Only one sidecar at a time: the others skip it, and one of them goes on when that one
-- is gone. It waits for nothing but the counter, as every writer does, and gives up after a second: the next step
-- comes.
create function plugin_sidecar.sweep(p_plugin uuid, p_limit int, out removed bigint, out more boolean)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_sort = off
set lock_timeout = '1s'
as $$
declare
  v_counter record;
  v_expired record;
begin
  removed := 0;
  more := false;
  perform from state_schema.plugin_state s
    where s.plugin_id = p_plugin and s.sidecar_expires_at <= clock_timestamp() order by s.sidecar_expires_at limit 1;
  if not found or not pg_try_advisory_xact_lock(1886545267, hashtext(p_plugin::text)) then
    return;
  end if;
  v_counter := plugin_sidecar.begin_writes(p_plugin);
  if v_counter.revision is null then
    return;
  end if;
  v_expired := plugin_sidecar.remove_expired(p_plugin, v_counter.begun_at, p_limit, 8 * 1024 * 1024);
  update plugin_sidecar.plugin_revisions r
     set revision = r.revision + v_expired.entries, entries = r.entries - v_expired.entries,
         bytes = r.bytes - v_expired.bytes
   where r.plugin_id = p_plugin and v_expired.entries > 0;
  removed := v_expired.entries;
  -- All that is left may be held by others: then at once would be too soon.
  more := v_expired.more and removed > 0;
end $$;

-- One bounded step of forgetting a plugin's answers: to requests whose ids needn't be remembered any more, and of
-- batches that nobody can still ask for. Says and skips as sweep does.
create function plugin_sidecar.sweep_answers(p_plugin uuid, p_limit int, out removed bigint, out more boolean)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_sort = off
as $$
declare
  v_rows bigint;
begin
  removed := 0;
  more := false;
  if not pg_try_advisory_xact_lock(1886545268, hashtext(p_plugin::text)) then
    return;
  end if;
  delete from plugin_sidecar.requests r
   where (r.plugin_id = p_plugin) is true
     and r.ctid = any (array(select q.ctid from plugin_sidecar.requests q
                              where q.plugin_id = p_plugin and q.expires_at <= statement_timestamp()
                              order by q.expires_at limit p_limit for update skip locked));
  get diagnostics removed = row_count;
  delete from plugin_sidecar.batches b
   where (b.plugin_id = p_plugin) is true
     and b.ctid = any (array(select q.ctid from plugin_sidecar.batches q
                              where q.plugin_id = p_plugin
                                and q.ended_at <= statement_timestamp() - interval '1 day'
                              limit p_limit for update skip locked));
  get diagnostics v_rows = row_count;
  more := removed >= p_limit or v_rows >= p_limit;
  removed := removed + v_rows;
end $$;

-- Whoever serves is granted them by name: see docs/database.md.
revoke execute on all functions in schema plugin_sidecar from public;

-- Down Migration

drop function plugin_sidecar.sweep_answers(uuid, int);
drop function plugin_sidecar.sweep(uuid, int);
drop function plugin_sidecar.settle_batch(uuid, uuid, bigint);
drop function plugin_sidecar.keep_answer(uuid, uuid, bigint, smallint[], bigint[], jsonb[], timestamptz);
drop function plugin_sidecar.write_entries(uuid, uuid, bigint, int[], boolean[], text[], text[], text[], text[],
  boolean[], int[], text[], jsonb, bigint[], bigint[], boolean[], boolean[], uuid[], text[], bigint, bigint, bigint,
  bigint, bigint);
drop function plugin_sidecar.answer_rows(smallint[], bigint[], jsonb[]);
drop function plugin_sidecar.remember_request(uuid, uuid, text, timestamptz, smallint[], bigint[], jsonb[]);
drop function plugin_sidecar.remove_expired(uuid, timestamptz, int, bigint);
drop function plugin_sidecar.changed_value(text, jsonb, jsonb);
drop function plugin_sidecar.merge_patch(jsonb, jsonb);
drop function plugin_sidecar.microseconds(timestamptz);
drop table plugin_sidecar.batches;
drop table plugin_sidecar.requests;
