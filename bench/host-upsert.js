// @ts-check
// `npm run bench -- host-upsert`: what a host's plain SQL costs on its tables with a sidecar attached, against the
// same on tables that nobody is attached to, in two databases of one embedded PostgreSQL. Statements take turns, so
// what disturbs the machine disturbs both; commits don't wait for the disk, which would hide the difference.
// BENCH_UPSERTS says how many of each, BENCH_SECONDS how long the twelve clients write. About a minute.

import { execFile } from "node:child_process";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import pg from "pg";
import { startEmbedded } from "../dist/embedded/embedded-postgres.js";
import { Child } from "./load/child.js";
import { generateLoad } from "./load/generator.js";
import { barRow, median, printBars } from "./process-state.js";

const upserts = Number(process.env["BENCH_UPSERTS"] ?? 5_000);
const seconds = Number(process.env["BENCH_SECONDS"] ?? 3);
const rounds = 5;
const clients = 12;
const keys = 1_000;
const startTimeoutMs = 60_000;
const main = fileURLToPath(new URL("../dist/main.js", import.meta.url));

/** The bars: of one statement's median, and of the transactions that twelve clients make. */
const mostTimes = 1.5;
const leastShare = 1 / 1.5;

/** The host's two tables, as far as an upsert touches them. */
const hostTables = `
  create table plugins (
    id uuid primary key default gen_random_uuid(), plugin_key text not null unique, package_name text not null,
    version text not null, manifest_json jsonb not null, status text not null default 'installed');
  create table plugin_state (
    id uuid primary key default gen_random_uuid(),
    plugin_id uuid not null references plugins(id) on delete cascade,
    scope_kind text not null, scope_id text, namespace text not null default 'default',
    state_key text not null, value_json jsonb not null, updated_at timestamptz not null default now(),
    constraint plugin_state_unique_entry_idx
      unique nulls not distinct (plugin_id, scope_kind, scope_id, namespace, state_key));
  create index plugin_state_plugin_scope_idx on plugin_state (plugin_id, scope_kind);
  insert into plugins (plugin_key, package_name, version, manifest_json)
  values ('demo', 'demo', '1.0.0', '{}'), ('other', 'other', '1.0.0', '{}')`;

const upsert = {
  name: "upsert",
  text: `
    insert into plugin_state (plugin_id, scope_kind, scope_id, namespace, state_key, value_json, updated_at)
    values ($1, 'run', 'host', 'default', $2, $3, $4)
    on conflict (plugin_id, scope_kind, scope_id, namespace, state_key)
    do update set value_json = $3, updated_at = $4`,
};

/** @typedef {{ url: string, client: pg.Client, pluginIds: string[] }} Database */

const dataDir = join(tmpdir(), `plugin-state-bench-${process.pid}`);
const log = { info() {}, warn() {}, error() {} };
const postgres = await startEmbedded({ dataDir, log, settings: { synchronous_commit: "off" } });
/** @type {Child | undefined} */
let sidecar;
const { host, port, user } = postgres.connection;
/** @param {string} name */
const urlOf = (name) =>
  `postgres://${user}@localhost:${port}/${name}?host=${encodeURIComponent(host)}`;
try {
  const plain = await makeDatabase("plain");
  const attached = await makeDatabase("attached");
  const env = { ...process.env, DATABASE_URL: attached.url };
  const schema = ["--state-schema", "public"];
  await promisify(execFile)(process.execPath, [main, "migrate", ...schema], { env });
  await compare(plain, attached); // for caches and plans

  const startedAt = performance.now();
  const unread = await compare(plain, attached);
  const lasts = (performance.now() - startedAt) / 1_000;
  sidecar = new Child(
    main,
    ["serve", ...schema, "--plugin", "demo", "--listen", "127.0.0.1:0", "--exit-with-parent"],
    { DATABASE_URL: attached.url },
  );
  const ready = /** @type {{ bindings: { address: string }[] }} */ (
    await sidecar.firstLine(startTimeoutMs)
  );
  const address = ready.bindings[0]?.address ?? "";
  const [beside] = await Promise.all([compare(plain, attached), read(address, 2 * lasts)]);
  const [plainRate, attachedRate] = await compareCrossing(plain, attached);
  printBars([
    upsertRow("upsert", unread),
    upsertRow("upsert, of a plugin that a worker reads all the time", beside),
    barRow(
      `transactions of ${clients} clients that write two plugins in opposite orders, medians of ${rounds} rounds (alone ${plainRate.toFixed(0)}/s)`,
      `${attachedRate.toFixed(0)}/s, ${(attachedRate / plainRate).toFixed(2)} ×`,
      `≥ ${leastShare.toFixed(2)} ×`,
      attachedRate / plainRate >= leastShare,
    ),
  ]);
  await Promise.all([plain.client.end(), attached.client.end()]);
} finally {
  await sidecar?.stop();
  await postgres.stop();
  await rm(dataDir, { recursive: true, force: true });
}

/** @param {string} name @returns {Promise<Database>} */
async function makeDatabase(name) {
  const admin = await connect(urlOf("postgres"));
  await admin.query(`create database ${name}`);
  await admin.end();
  const client = await connect(urlOf(name));
  await client.query(hostTables);
  const { rows } = await client.query("select id from plugins order by plugin_key");
  return { url: urlOf(name), client, pluginIds: rows.map(({ id }) => id) };
}

/** @param {string} url */
async function connect(url) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client;
}

/**
 * Medians in milliseconds of single upserts, which take turns; who is first takes turns too.
 * @param {Database} plain
 * @param {Database} attached
 * @returns {Promise<[plainMs: number, attachedMs: number]>}
 */
async function compare(plain, attached) {
  /** @type {[number[], number[]]} */
  const times = [[], []];
  for (let n = 0; n < upserts; n++) {
    const both = /** @type {const} */ ([
      [plain, times[0]],
      [attached, times[1]],
    ]);
    for (const [database, list] of n % 2 === 0 ? both : [...both].reverse()) {
      const startedAt = performance.now();
      await write(database.client, database.pluginIds[0] ?? "", `key-${n % keys}`);
      list.push(performance.now() - startedAt);
    }
  }
  return [median(times[0]), median(times[1])];
}

/** @param {pg.Client} client @param {string} pluginId @param {string} key */
async function write(client, pluginId, key) {
  const value = JSON.stringify({ key, text: "x".repeat(180) });
  await client.query({ ...upsert, values: [pluginId, key, value, new Date()] });
}

/** A worker that reads as fast as it is answered. @param {string} address @param {number} seconds */
async function read(address, seconds) {
  const { errors, errorCodes } = await generateLoad({
    address,
    payloads: { kind: "pluginstate", rpcs: { Get: 1 } },
    inFlight: 1,
    connections: 1,
    seconds,
    warmupSeconds: 0,
  });
  if (errors > 0) throw new Error(`calls failed: ${JSON.stringify(errorCodes)}`);
}

/**
 * Transactions a second of clients that write two plugins, every other one in the opposite order; medians of
 * rounds in which the databases take turns. A transaction that fails is none.
 * @param {Database} plain
 * @param {Database} attached
 */
async function compareCrossing(plain, attached) {
  /** @type {[number[], number[]]} */
  const rates = [[], []];
  for (let round = 1; round <= rounds; round++) {
    process.stderr.write(`round ${round}/${rounds}\n`);
    rates[0].push(await crossing(plain));
    rates[1].push(await crossing(attached));
  }
  return [median(rates[0]), median(rates[1])];
}

/** @param {Database} database */
async function crossing({ url, pluginIds }) {
  const untilMs = performance.now() + seconds * 1_000;
  let done = 0;
  const work = async (/** @type {number} */ number) => {
    const client = await connect(url);
    const order = number % 2 === 0 ? pluginIds : [...pluginIds].reverse();
    for (let n = 0; performance.now() < untilMs; n++) {
      try {
        await client.query("begin");
        for (const pluginId of order) await write(client, pluginId, `client-${number}/${n % 50}`);
        await client.query("commit");
        done++;
      } catch {
        await client.query("rollback");
      }
    }
    await client.end();
  };
  await Promise.all(Array.from({ length: clients }, (_, number) => work(number)));
  return done / seconds;
}

/** @param {string} name @param {[number, number]} medians */
function upsertRow(name, [plainMs, attachedMs]) {
  const ratio = attachedMs / plainMs;
  return barRow(
    `${name}, against ${plainMs.toFixed(3)} ms alone, medians of ${upserts}`,
    `${attachedMs.toFixed(3)} ms, ${ratio.toFixed(2)} ×`,
    `≤ ${mostTimes} ×`,
    ratio <= mostTimes,
  );
}
