// @ts-check
// `npm run bench`: what calls cost, in one run, next to an empty echo on a stock grpc-js server and to the
// same SQL straight through pg. Every figure is the median of some rounds, in which the measured things
// take turns: what disturbs the machine disturbs them alike. Judge by the ratios.

import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Child } from "./load/child.js";
import { generateLoad } from "./load/generator.js";
import { Servers } from "./servers.js";
import { table } from "./table.js";

/** @import { PayloadSpec } from "./load/payloads.js" */
/** @import { SqlResult, SqlSpec } from "./sql.js" */

const rounds = Number(process.env["BENCH_ROUNDS"] ?? 3);
const seconds = Number(process.env["BENCH_SECONDS"] ?? 3);
const warmupSeconds = 1;
const inFlight = 64;
const sqlTimeoutMs = 60_000;

/** @param {Partial<Record<"Get" | "Set", number>>} rpcs @returns {PayloadSpec} */
const calls = (rpcs) => ({ kind: "pluginstate", rpcs });

/**
 * One line of the report.
 * @typedef {object} Figures
 * @property {number} perSecond
 * @property {number} p50Us
 * @property {number} p99Us
 * @property {number} serverUs CPU of the server process for each call; of pg's own process for SQL
 * @property {number} clientShare of one core, used by the load generator
 */

/** @param {Servers} servers @param {PayloadSpec} payloads @param {number} atOnce @returns {Promise<Figures>} */
async function grpc({ echo, sidecar, postgresPid }, payloads, atOnce) {
  const server = payloads.kind === "empty" ? echo : sidecar;
  const result = await generateLoad({
    address: server.address,
    payloads,
    inFlight: atOnce,
    connections: 1,
    seconds,
    warmupSeconds,
    sampleEvery: 100,
    cpuOf: { server: { pid: server.pid }, postgres: { pid: postgresPid, tree: true } },
  });
  if (result.errors > 0 || (result.warmup?.errors ?? 0) > 0) {
    throw new Error(
      `calls failed: ${JSON.stringify({ ...result.errorCodes, detail: result.errorDetail })}`,
    );
  }
  return {
    perSecond: result.callsPerSecond,
    p50Us: result.p50Us,
    p99Us: result.p99Us,
    serverUs: result.cpuOf["server"]?.usPerCall ?? Number.NaN,
    clientShare: result.cpuShare,
  };
}

/** @param {Servers} servers @param {SqlSpec["statement"]} statement @param {number} atOnce @returns {Promise<Figures>} */
async function sql({ databaseUrl }, statement, atOnce) {
  /** @type {SqlSpec} */
  const spec = { url: databaseUrl, statement, atOnce, seconds, warmupSeconds };
  const child = new Child(new URL("sql.js", import.meta.url), [JSON.stringify(spec)]);
  try {
    const result = /** @type {SqlResult} */ (await child.firstLine(sqlTimeoutMs));
    return { ...result, clientShare: Number.NaN };
  } finally {
    await child.stop();
  }
}

const dataDir = join(tmpdir(), `plugin-state-bench-${process.pid}`);
const servers = await Servers.start(dataDir);
try {
  /** @type {[string, () => Promise<Figures>][]} */
  const measures = [];
  for (const atOnce of [inFlight, 1]) {
    measures.push(
      [
        `echo, ${atOnce} in flight`,
        () => grpc(servers, { kind: "empty", path: "/bench.Echo/Echo" }, atOnce),
      ],
      [`Set, ${atOnce} in flight`, () => grpc(servers, calls({ Set: 1 }), atOnce)],
      [`Get, ${atOnce} in flight`, () => grpc(servers, calls({ Get: 1 }), atOnce)],
      [`upsert through pg, ${atOnce} in flight`, () => sql(servers, "upsert", atOnce)],
      [`point select through pg, ${atOnce} in flight`, () => sql(servers, "select", atOnce)],
    );
  }
  // Get reads back what Set wrote: every key has to be there once.
  await servers.fill();
  const results = measures.map(() => /** @type {Figures[]} */ ([]));
  for (let round = 0; round < rounds; round++) {
    for (const [index, [name, measure]] of measures.entries()) {
      process.stderr.write(`round ${round + 1}/${rounds}: ${name}\n`);
      results[index]?.push(await measure());
    }
  }
  const lines = measures.map(([name], index) => ({ name, figures: results[index] ?? [] }));
  process.stdout.write(table(lines, { rounds, seconds, connections: await servers.connections() }));
} finally {
  await servers.stop();
  await rm(dataDir, { recursive: true, force: true });
}
