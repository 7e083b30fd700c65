// @ts-check
// The same SQL straight through pg, as a worker with its own connection would do it: a plain point select,
// or a plain upsert, on the same table. `node bench/sql.js '<SqlSpec as JSON>'` prints one line.

import { createHistogram } from "node:perf_hooks";
import pg from "pg";

/**
 * @typedef {object} SqlSpec
 * @property {string} url
 * @property {"select" | "upsert"} statement
 * @property {number} atOnce statements in flight; over 3 connections if there are as many
 * @property {number} seconds
 * @property {number} warmupSeconds
 */

/** @typedef {{ perSecond: number, p50Us: number, p99Us: number, serverUs: number }} SqlResult */

const connections = 3;
const keys = 10_000;

const statements = {
  select: `
    select value_json::text as value, revision from plugin_sidecar.plugin_state
     where plugin_id = $1 and scope_kind = 'project' and scope_id = 'bench-sql' and namespace = 'bench' and state_key = $2`,
  upsert: `
    insert into plugin_sidecar.plugin_state (plugin_id, scope_kind, scope_id, namespace, state_key, value_json, revision)
    values ($1, 'project', 'bench-sql', 'bench', $2, $3, 1)
    on conflict (plugin_id, scope_kind, scope_id, namespace, state_key)
    do update set value_json = excluded.value_json, updated_at = now()`,
};

/** @type {SqlSpec} */
const spec = JSON.parse(process.argv[2] ?? "{}");
// Not numbered by the sidecar's trigger: this is what plain SQL costs.
const options = "-c plugin_sidecar.writer=sidecar";
const max = Math.min(connections, spec.atOnce);
const pool = new pg.Pool({ connectionString: spec.url, options, max });
const { rows } = await pool.query(
  "select id from plugin_sidecar.plugins where plugin_key = 'demo'",
);
const value = JSON.stringify({
  id: 1,
  state: "open",
  weight: 0.5,
  tags: ["bench"],
  note: "x".repeat(160),
});
await pool.query({
  text: `${statements.upsert.replace("values ($1", "select $1::uuid").replace("$2, $3, 1)", "'item/' || n, $3::jsonb, 1 from generate_series(0, $2::int) as n")}`,
  values: [rows[0].id, keys, value],
});

let histogram = createHistogram();
let done = 0;

/** @param {number} untilMs */
async function one(untilMs) {
  while (performance.now() < untilMs) {
    const key = `item/${Math.floor(Math.random() * keys)}`;
    const values = spec.statement === "select" ? [rows[0].id, key] : [rows[0].id, key, value];
    const startedAt = performance.now();
    await pool.query({ name: spec.statement, text: statements[spec.statement], values });
    histogram.record(Math.max(1, Math.round((performance.now() - startedAt) * 1000)));
    done += 1;
  }
}

/** @param {number} seconds */
async function run(seconds) {
  const untilMs = performance.now() + seconds * 1000;
  await Promise.all(Array.from({ length: spec.atOnce }, () => one(untilMs)));
}

await run(spec.warmupSeconds);
histogram = createHistogram();
done = 0;
const cpuBefore = process.cpuUsage();
const startedAt = performance.now();
await run(spec.seconds);
const wallSeconds = (performance.now() - startedAt) / 1000;
const { user, system } = process.cpuUsage(cpuBefore);
await pool.end();

/** @type {SqlResult} */
const result = {
  perSecond: done / wallSeconds,
  p50Us: histogram.percentile(50),
  p99Us: histogram.percentile(99),
  serverUs: (user + system) / done,
};
process.stdout.write(`${JSON.stringify(result)}\n`);
