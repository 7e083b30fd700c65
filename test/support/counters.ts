import { expect } from "vitest";
import type { TestDatabase } from "./database.ts";

/** Gives a plugin's external writes their revisions, as a sidecar would. */
export async function settle(database: TestDatabase, pluginId: string): Promise<void> {
  for (let more = true; more; ) {
    const [row] = await database.query<{ more: boolean }>(
      "select more from plugin_sidecar.settle_external_writes($1, true)",
      [pluginId],
    );
    more = row!.more;
  }
}

/**
 * Fails unless a plugin's counters say what counting says, and each of its entries has a revision of its own, none of
 * them above the counter's. Gives external writes their revisions first.
 *
 * @returns The counters.
 */
export async function expectCounted(
  database: TestDatabase,
  pluginId: string,
  table = "plugin_sidecar.plugin_state",
) {
  await settle(database, pluginId);
  const [row] = await database.query<Record<string, string>>(
    `select r.revision, r.entries, r.bytes, count(e.key) as found_entries, coalesce(sum(e.bytes), 0) as found_bytes,
            coalesce(sum(e.noted_bytes), 0) as noted_bytes, count(distinct e.revision) as revisions,
            count(*) filter (where e.revision > r.revision) as beyond
       from plugin_sidecar.plugin_revisions r
       left join lateral (
         select s.state_key as key, case when s.sidecar_write_id is null then s.sidecar_revision else x.revision end as revision,
                octet_length(coalesce(s.scope_id, '')) + octet_length(s.namespace) + octet_length(s.state_key)
                  + octet_length(s.value_json::text) as bytes,
                case when s.sidecar_write_id is null then s.sidecar_bytes else x.bytes end as noted_bytes
           from ${table} s
           left join plugin_sidecar.external_revisions x
             on x.plugin_id = s.plugin_id and x.stamp = s.sidecar_write_id
          where s.plugin_id = r.plugin_id) e on true
      where r.plugin_id = $1 group by r.plugin_id`,
    [pluginId],
  );
  const { revision, entries, bytes, ...found } = row!;
  expect(found).toEqual({
    found_entries: entries,
    found_bytes: bytes,
    noted_bytes: bytes,
    revisions: entries,
    beyond: "0",
  });
  return { revision: BigInt(revision!), entries: Number(entries), bytes: Number(bytes) };
}
