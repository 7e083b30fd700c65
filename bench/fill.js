// @ts-check
// Fills a table as the sidecar would have: rows with revisions and sizes, and the plugin's counters.

import { itemAt } from "./load/items.js";

/** @import pg from "pg" */
/** @import { Item } from "./load/items.js" */

/** So few that a statement goes into the socket at once: the next is made while PostgreSQL inserts. */
const rowsPerInsert = 500;
const valueBytes = 220;
const seed = 1;

const countStatement = `
  update plugin_sidecar.plugin_revisions
     set revision = revision + $2, entries = entries + $2
   where plugin_id = $1
   returning revision - $2 as before`;

const insertStatement = `
  with inserted as (
    insert into plugin_sidecar.plugin_state
           (plugin_id, scope_kind, scope_id, namespace, state_key, value_json, sidecar_revision, sidecar_bytes)
    select $1, $2, $3, $4, i.key, v.value, $7::bigint + i.ord,
           plugin_sidecar.entry_bytes($3, $4, i.key, v.value)
      from unnest($5::text[], $6::text[]) with ordinality as i (key, value, ord)
     cross join lateral (select i.value::jsonb as value) v
    returning sidecar_bytes)
  select sum(sidecar_bytes)::bigint as bytes from inserted`;

/** Where entries are, in the words of the table. @typedef {{ scopeKind: string, scopeId: string, namespace: string }} Place */

/**
 * Inserts the load generator's first `count` entries, then vacuums: what follows begins with statistics,
 * and no autovacuum comes because of this.
 * @param {pg.Client} client whose writes the sidecar's triggers leave alone: plugin_sidecar.writer = sidecar
 * @param {string} pluginId
 * @param {Place} place
 * @param {number} count
 */
export async function fill(client, pluginId, place, count) {
  await client.query("begin");
  // A plugin that nobody has used yet has no counter.
  await client.query("select plugin_sidecar.settle_external_writes($1, true)", [pluginId]);
  const counted = await client.query(countStatement, [pluginId, count]);
  const before = Number(counted.rows[0].before);
  let bytes = 0;
  let inserted = Promise.resolve(0);
  for (let from = 0; from < count; from += rowsPerInsert) {
    const items = itemsFrom(from, Math.min(count, from + rowsPerInsert));
    bytes += await inserted;
    inserted = insert(client, pluginId, place, items, before + from);
  }
  bytes += await inserted;
  await client.query(
    "update plugin_sidecar.plugin_revisions set bytes = bytes + $2 where plugin_id = $1",
    [pluginId, bytes],
  );
  await client.query("commit");
  await client.query("vacuum analyze plugin_sidecar.plugin_state");
}

/**
 * Resolves with how large they are.
 * @param {pg.Client} client
 * @param {string} pluginId
 * @param {Place} place
 * @param {Item[]} items
 * @param {number} revision the last before theirs
 */
async function insert(client, pluginId, { scopeKind, scopeId, namespace }, items, revision) {
  const keys = items.map(({ key }) => key);
  const values = items.map(({ valueJson }) => valueJson);
  const { rows } = await client.query({
    name: "fill",
    text: insertStatement,
    values: [pluginId, scopeKind, scopeId, namespace, keys, values, revision],
  });
  return Number(rows[0].bytes);
}

/** @param {number} from @param {number} end */
function itemsFrom(from, end) {
  return Array.from({ length: end - from }, (_, n) => itemAt(from + n, valueBytes, seed));
}
