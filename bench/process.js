// @ts-check
// `npm run bench -- process`: what a sidecar costs as a process. How long a start takes, to the ready line, on a
// migrated database, as a multiple of what Node itself takes for nothing; and its memory when idle, after
// half a million calls and after a million. BENCH_STARTS and BENCH_CALLS say how many. On a quiet
// machine; about 3 minutes.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Child } from "./load/child.js";
import { generateLoad } from "./load/generator.js";
import { barRow, idleMiB, median, printBars } from "./process-state.js";
import { Servers } from "./servers.js";

const starts = Number(process.env["BENCH_STARTS"] ?? 15);
const calls = Number(process.env["BENCH_CALLS"] ?? 1_000_000);
const main = new URL("../dist/main.js", import.meta.url);
const startTimeoutMs = 60_000;
const loadSeconds = 1_800;

/** The bars: of the start against `node -e 0`, and of memory in MiB. */
const mostStarts = 8;
const mostIdleMiB = 100;
const mostAfterCallsMiB = 200;
/** What memory may grow by from half of the calls to all: a heap isn't collected at the same moment twice. */
const mostGrowth = 1.1;

const dataDir = join(tmpdir(), `plugin-state-bench-${process.pid}`);
const servers = new Servers(dataDir);
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => void servers.stop());
try {
  await servers.start(new Set());
  const flags = ["serve", "--database-url", servers.databaseUrl, "--plugin", "demo"];
  const serve = [...flags, "--listen", "127.0.0.1:0", "--log-level", "warn", "--exit-with-parent"];
  const [start, node] = await measureStarts(serve);
  const memory = await measureMemory(serve);
  printBars([
    barRow(
      `start to ready line, against \`node -e 0\` (${node.toFixed(0)} ms), medians of ${starts}`,
      `${start.toFixed(0)} ms, ${(start / node).toFixed(1)} ×`,
      `≤ ${mostStarts} ×`,
      start / node <= mostStarts,
    ),
    barRow("memory, idle", mib(memory.idle), `≤ ${mostIdleMiB} MiB`, memory.idle <= mostIdleMiB),
    barRow(
      `memory after ${calls} calls`,
      mib(memory.after),
      `≤ ${mostAfterCallsMiB} MiB`,
      memory.after <= mostAfterCallsMiB,
    ),
    barRow(
      `the same, against that after half of them (${mib(memory.half)})`,
      `${(memory.after / memory.half).toFixed(2)} ×`,
      `≤ ${mostGrowth} ×`,
      memory.after / memory.half <= mostGrowth,
    ),
  ]);
} finally {
  await servers.stop();
  await rm(dataDir, { recursive: true, force: true });
}

/**
 * In turns, so that what disturbs the machine disturbs both.
 * @param {string[]} serve
 * @returns {Promise<[startMs: number, nodeMs: number]>}
 */
async function measureStarts(serve) {
  const startMs = [];
  const nodeMs = [];
  // The first of each reads its files from the disk.
  for (let n = 0; n <= starts; n++) {
    process.stderr.write(`start ${n}/${starts}\n`);
    const node = await elapsed(() => once(spawn(process.execPath, ["-e", "0"]), "exit"));
    const child = new Child(main, serve);
    const start = await elapsed(() => child.firstLine(startTimeoutMs));
    await child.stop();
    if (n > 0) {
      startMs.push(start);
      nodeMs.push(node);
    }
  }
  return [median(startMs), median(nodeMs)];
}

/** @param {() => Promise<unknown>} work */
async function elapsed(work) {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}

/** @param {string[]} serve */
async function measureMemory(serve) {
  const child = new Child(main, serve);
  try {
    const ready = /** @type {{ bindings: { address: string }[] }} */ (
      await child.firstLine(startTimeoutMs)
    );
    const address = ready.bindings[0]?.address ?? "";
    const idle = await idleMiB(child.pid);
    await call(address, calls / 2);
    const half = await idleMiB(child.pid);
    await call(address, calls / 2);
    return { idle, half, after: await idleMiB(child.pid) };
  } finally {
    await child.stop();
  }
}

/** @param {string} address @param {number} count */
async function call(address, count) {
  process.stderr.write(`${count} calls\n`);
  const { errors, errorCodes } = await generateLoad({
    address,
    payloads: { kind: "pluginstate", rpcs: { Get: 0.68, Set: 0.3, List: 0.02 } },
    inFlight: 64,
    connections: 4,
    count,
    seconds: loadSeconds,
  });
  if (errors > 0) throw new Error(`calls failed: ${JSON.stringify(errorCodes)}`);
}

/** @param {number} value */
function mib(value) {
  return `${value.toFixed(0)} MiB`;
}
