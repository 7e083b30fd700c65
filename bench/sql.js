// @ts-check
// The same SQL straight through pg, as a worker with its own connection would do it, on the same table: a
// plain point select or upsert, or one statement for a hundred keys. No revisions, no counters.
// `node bench/sql.js '<SqlSpec as JSON>'` prints one line.

import { createHistogram } from "node:perf_hooks";
import pg from "pg";
import { cpuSecondsOfTree, machineCpuSeconds } from "./load/cpu.js";
import { itemAt, randomNumbers, shuffled } from "./load/items.js";
import { SQL_PLACE } from "./sql-place.js";

/**
 * @typedef {object} SqlSpec
 * @property {string} url
 * @property {string} pluginId whose first 10,000 entries are in SQL_PLACE
 * @property {number} postgresPid
 * @property {StatementName} statement
 * @property {number} atOnce statements in flight
 * @property {number} connections
 * @property {number} seconds
 * @property {number} warmupSeconds
 */

/** @typedef {"select" | "upsert" | "select100" | "upsert100"} StatementName */

/**
 * @typedef {object} SqlResult
 * @property {number} perSecond keys
 * @property {number} p50Us of a statement
 * @property {number} p99Us of a statement
 * @property {number} serverUs CPU of this process for each statement
 * @property {number} others cores that other processes used, PostgreSQL not among them
 */

const keys = 10_000;
const place = `'${SQL_PLACE.scopeKind}', '${SQL_PLACE.scopeId}', '${SQL_PLACE.namespace}'`;
const wherePlace = `plugin_id = $1 and (scope_kind, scope_id, namespace) = (${place})`;
const intoState =
  "insert into plugin_sidecar.plugin_state (plugin_id, scope_kind, scope_id, namespace, state_key, value_json, sidecar_revision)";
const orUpdate = `
  on conflict (plugin_id, scope_kind, scope_id, namespace, state_key)
  do update set value_json = excluded.value_json, updated_at = now()`;

/** @type {Record<StatementName, string>} */
const statements = {
  select: `
    select value_json::text as value, sidecar_revision from plugin_sidecar.plugin_state
     where ${wherePlace} and state_key = $2`,
  upsert: `${intoState} values ($1, ${place}, $2, $3, 1) ${orUpdate}`,
  select100: `
    select state_key, value_json::text as value, sidecar_revision from plugin_sidecar.plugin_state
     where ${wherePlace} and state_key = any ($2::text[])`,
  upsert100: `
    ${intoState}
    select $1, ${place}, i.key, i.value::jsonb, 1 from unnest($2::text[], $3::text[]) as i (key, value) ${orUpdate}`,
};

/** @type {SqlSpec} */
const spec = JSON.parse(process.argv[2] ?? "{}");
const { statement: name, atOnce } = spec;
// Not numbered by the sidecar's trigger: this is what plain SQL costs.
const options = "-c plugin_sidecar.writer=sidecar";
const pool = new pg.Pool({ connectionString: spec.url, options, max: spec.connections });
const keysPerStatement = name.endsWith("100") ? 100 : 1;
const calls = makeCalls();

let histogram = createHistogram();
let started = 0;
let done = 0;

/** The values of each statement, each key in one of them, in random order. */
function makeCalls() {
  const order = shuffled(keys, randomNumbers(Date.now()));
  const writes = name.startsWith("upsert");
  return Array.from({ length: keys / keysPerStatement }, (_, n) => {
    const indexes = order.slice(n * keysPerStatement, (n + 1) * keysPerStatement);
    const items = indexes.map((index) => itemAt(index, 220, 1));
    const texts = [items.map(({ key }) => key)];
    if (writes) texts.push(items.map(({ valueJson }) => valueJson));
    return [spec.pluginId, ...texts.map((list) => (keysPerStatement === 1 ? list[0] : list))];
  });
}

/** @param {number} untilMs */
async function one(untilMs) {
  while (performance.now() < untilMs) {
    const values = calls[started++ % calls.length] ?? [];
    const startedAt = performance.now();
    const { rowCount } = await pool.query({ name, text: statements[name], values });
    if (rowCount !== keysPerStatement) throw new Error(`${name}: ${rowCount} rows`);
    histogram.record(Math.max(1, Math.round((performance.now() - startedAt) * 1000)));
    done += 1;
  }
}

/** @param {number} seconds */
async function run(seconds) {
  const untilMs = performance.now() + seconds * 1000;
  await Promise.all(Array.from({ length: atOnce }, () => one(untilMs)));
}

function otherSeconds() {
  const { user, system } = process.cpuUsage();
  return (
    machineCpuSeconds() - (user + system) / 1e6 - (cpuSecondsOfTree(spec.postgresPid) ?? Number.NaN)
  );
}

await run(spec.warmupSeconds);
histogram = createHistogram();
done = 0;
const othersBefore = otherSeconds();
const cpuBefore = process.cpuUsage();
const startedAt = performance.now();
await run(spec.seconds);
const wallSeconds = (performance.now() - startedAt) / 1000;
const { user, system } = process.cpuUsage(cpuBefore);
const others = Math.max(0, otherSeconds() - othersBefore) / wallSeconds;
await pool.end();

/** @type {SqlResult} */
const result = {
  perSecond: (done * keysPerStatement) / wallSeconds,
  p50Us: histogram.percentile(50),
  p99Us: histogram.percentile(99),
  serverUs: (user + system) / done,
  others,
};
process.stdout.write(`${JSON.stringify(result)}\n`);
