// @ts-check
// What is measured, by name, and how. Everything else (bars.js, table.js) only works on the figures.

import { Child } from "./load/child.js";
import { generateLoad } from "./load/generator.js";
import { KEYS_PER_BATCH } from "./load/payloads.js";
import { ENTRIES } from "./servers.js";

/** @import { PayloadSpec, RpcName } from "./load/payloads.js" */
/** @import { Extra, Server, Servers } from "./servers.js" */
/** @import { SqlResult, SqlSpec } from "./sql.js" */

/**
 * What a measurement came to.
 * @typedef {object} Figures
 * @property {number} perSecond calls; keys, where a call or statement is about a hundred
 * @property {number} p50Us of a call
 * @property {number} p99Us of a call
 * @property {number} serverUs CPU of the server process for each call; of pg's own process for SQL
 * @property {number} clientShare of one core, used by the load generator
 * @property {number} others cores used by what has no part in it
 */

/** How long each measurement takes. @typedef {{ seconds: number, warmupSeconds: number, round: number }} Timing */

/**
 * @typedef {object} Measure
 * @property {string} name
 * @property {Extra[]} needs
 * @property {(servers: Servers, timing: Timing) => Promise<Figures>} run
 */

const sqlMarginMs = 30_000;

/** How many of the many keys are called in one measurement: more than there is time for. */
const calledKeys = 20_000;

/**
 * Calls each sidecar for a while: their code is then compiled alike, however much each is used later.
 * @param {Servers} servers
 */
export async function warmUp(servers) {
  const timing = { seconds: 2, warmupSeconds: 0 };
  for (const [name, sidecar] of servers.sidecars) {
    /** @type {PayloadSpec} */
    const payloads = {
      kind: "pluginstate",
      rpcs: { Get: 0.45, Set: 0.45, List: 0.1 },
      orderSeed: 99,
    };
    if (name === "many") Object.assign(payloads, { keys: ENTRIES.many, calledKeys });
    await load(servers, sidecar, payloads, 64, timing);
  }
}

/** @param {number} inFlight */
export function echo(inFlight) {
  const payloads = { kind: /** @type {const} */ ("empty"), path: "/bench.Echo/Echo" };
  return measure(`echo, ${inFlight} in flight`, [], (servers, timing) => {
    if (servers.echo === undefined) throw new Error("not started");
    return load(servers, servers.echo, payloads, inFlight, timing);
  });
}

/**
 * Calls of one RPC, each for another key or hundred keys.
 * @param {RpcName} rpc
 * @param {number} inFlight
 * @param {"usual" | Extra} on which sidecar
 */
export function calls(rpc, inFlight, on = "usual") {
  const where = { usual: "", uncoalesced: ", --no-coalescing", many: `, ${ENTRIES.many} entries` };
  const needs = on === "usual" ? [] : [on];
  return measure(`${rpc}${where[on]}, ${inFlight} in flight`, needs, async (servers, timing) => {
    const sidecar = servers.sidecars.get(on);
    if (sidecar === undefined) throw new Error(`no sidecar: ${on}`);
    const keys = on === "many" ? { keys: ENTRIES.many, calledKeys } : {};
    /** @type {PayloadSpec} */
    const payloads = { kind: "pluginstate", rpcs: { [rpc]: 1 }, orderSeed: timing.round, ...keys };
    return load(servers, sidecar, payloads, inFlight, timing);
  });
}

/** @param {Measure} slowed */
export function withCommitDelay({ name, needs, run }) {
  return measure(`${name}, commit_delay 2 ms`, needs, (servers, timing) =>
    servers.withCommitDelay(() => run(servers, timing)),
  );
}

/**
 * @param {SqlSpec["statement"]} statement
 * @param {number} atOnce
 * @param {number} connections
 */
export function sql(statement, atOnce, connections) {
  const names = {
    select: "point select",
    upsert: "upsert",
    select100: "select of 100 rows",
    upsert100: "upsert of 100 rows",
  };
  const name = `${names[statement]} through pg, ${atOnce} in flight`;
  return measure(name, [], async (servers, { seconds, warmupSeconds }) => {
    const { databaseUrl: url, postgresPid } = servers;
    const pluginId = servers.sidecars.get("usual")?.pluginId ?? "";
    /** @type {SqlSpec} */
    const spec = {
      ...{ url, pluginId, postgresPid, statement, atOnce, connections },
      ...{ seconds, warmupSeconds },
    };
    const child = new Child(new URL("sql.js", import.meta.url), [JSON.stringify(spec)]);
    try {
      const timeoutMs = (seconds + warmupSeconds) * 1_000 + sqlMarginMs;
      const result = /** @type {SqlResult} */ (await child.firstLine(timeoutMs));
      return { ...result, clientShare: Number.NaN };
    } finally {
      await child.stop();
    }
  });
}

/** @param {string} name @param {Extra[]} needs @param {Measure["run"]} run @returns {Measure} */
function measure(name, needs, run) {
  return { name, needs, run };
}

/**
 * @param {Servers} servers
 * @param {Server} server
 * @param {PayloadSpec} payloads
 * @param {number} inFlight
 * @param {Omit<Timing, "round">} timing
 * @returns {Promise<Figures>}
 */
async function load({ postgresPid }, server, payloads, inFlight, { seconds, warmupSeconds }) {
  const isBatch =
    payloads.kind !== "empty" && ("Transact" in payloads.rpcs || "BatchGet" in payloads.rpcs);
  const result = await generateLoad({
    address: server.address,
    payloads,
    inFlight,
    connections: 1,
    seconds,
    warmupSeconds,
    sampleEvery: isBatch ? 10 : 100,
    cpuOf: { server: { pid: server.pid }, postgres: { pid: postgresPid, tree: true } },
  });
  if (result.errors > 0 || (result.warmup?.errors ?? 0) > 0) {
    const codes = { ...result.warmup?.errorCodes, ...result.errorCodes };
    const detail = result.errorDetail || result.warmup?.errorDetail;
    throw new Error(`calls failed: ${JSON.stringify({ ...codes, detail })}`);
  }
  return {
    perSecond: (result.calls / result.wallSeconds) * (isBatch ? KEYS_PER_BATCH : 1),
    p50Us: result.p50Us,
    p99Us: result.p99Us,
    serverUs: result.cpuOf["server"]?.usPerCall ?? Number.NaN,
    clientShare: result.cpuShare,
    others: result.others.share,
  };
}
