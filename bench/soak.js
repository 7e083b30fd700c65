// @ts-check
// `npm run bench -- soak`: two million calls by clients that come and go, and whether anything grows
// meanwhile: memory, descriptors, database connections. Prints a line for each generation of clients,
// then the verdict. BENCH_CALLS and BENCH_GENERATIONS say how many. About 5 minutes.

import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { generateLoad } from "./load/generator.js";
import { barRow, descriptors, median, printBars, residentMiB } from "./process-state.js";
import { Servers } from "./servers.js";

const calls = Number(process.env["BENCH_CALLS"] ?? 2_000_000);
const generations = Number(process.env["BENCH_GENERATIONS"] ?? 100);
const connectionsOfAGeneration = 8;
const inFlight = 64;
const loadSeconds = 600;
/** Until the sidecar has seen that its clients are gone. */
const settleMs = 200;

const mostConnections = 3;
/** What may be more in the last quarter than in the second: a heap's size swings. */
const mostMemoryGrowth = 1.1;
const mostDescriptorGrowth = 0;

/** @typedef {{ memoryMiB: number, descriptors: number, connections: number }} Sample */

const dataDir = join(tmpdir(), `plugin-state-bench-${process.pid}`);
const servers = new Servers(dataDir);
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => void servers.stop());
try {
  await servers.start(new Set());
  const sidecar = servers.sidecars.get("usual");
  if (sidecar === undefined) throw new Error("no sidecar");
  process.stdout.write("calls\tMiB\tdescriptors\tdatabase connections\n");
  /** @type {Sample[]} */
  const samples = [];
  for (let n = 0; n < generations; n++) {
    await live(sidecar.address, n);
    await sleep(settleMs);
    const sample = await look(sidecar.pid);
    samples.push(sample);
    const made = Math.round(((n + 1) * calls) / generations);
    const { memoryMiB, descriptors, connections } = sample;
    process.stdout.write(`${made}\t${memoryMiB.toFixed(1)}\t${descriptors}\t${connections}\n`);
  }
  judge(samples);
} finally {
  await servers.stop();
  await rm(dataDir, { recursive: true, force: true });
}

/**
 * One generation of clients: they connect, call, and are gone.
 * @param {string} address
 * @param {number} generation
 */
async function live(address, generation) {
  const { errors, errorCodes, errorDetail } = await generateLoad({
    address,
    payloads: {
      kind: "pluginstate",
      rpcs: { Get: 0.68, Set: 0.3, List: 0.02 },
      orderSeed: generation,
    },
    inFlight,
    connections: connectionsOfAGeneration,
    count: Math.round(calls / generations),
    seconds: loadSeconds,
  });
  if (errors > 0)
    throw new Error(`calls failed: ${JSON.stringify({ ...errorCodes, errorDetail })}`);
}

/** @param {number} pid @returns {Promise<Sample>} */
async function look(pid) {
  return {
    memoryMiB: residentMiB(pid),
    descriptors: descriptors(pid),
    connections: await servers.countConnections(),
  };
}

/** Compares the last quarter with the second; the first is the warm-up. @param {Sample[]} samples */
function judge(samples) {
  const quarter = Math.floor(samples.length / 4);
  const early = samples.slice(quarter, 2 * quarter);
  const late = samples.slice(-quarter);
  /** @param {keyof Sample} what */
  const pair = (what) =>
    /** @type {const} */ ([
      median(early.map((sample) => sample[what])),
      median(late.map((sample) => sample[what])),
    ]);
  const [memoryBefore, memoryAfter] = pair("memoryMiB");
  const [openBefore, openAfter] = pair("descriptors");
  const connections = Math.max(...samples.map((sample) => sample.connections));
  process.stdout.write(`\nMedians of the second and the last quarter of ${calls} calls.\n\n`);
  printBars([
    barRow(
      "memory",
      `${memoryBefore.toFixed(0)}, then ${memoryAfter.toFixed(0)} MiB`,
      `≤ ${mostMemoryGrowth} ×`,
      memoryAfter / memoryBefore <= mostMemoryGrowth,
    ),
    barRow(
      "descriptors",
      `${openBefore}, then ${openAfter}`,
      `+ ${mostDescriptorGrowth}`,
      openAfter - openBefore <= mostDescriptorGrowth,
    ),
    barRow(
      "database connections at most",
      `${connections}`,
      `≤ ${mostConnections}`,
      connections <= mostConnections,
    ),
  ]);
}
