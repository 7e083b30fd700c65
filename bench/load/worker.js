// @ts-check
// The load generator's process: `node bench/load/worker.js '<LoadSpec as JSON>'` prints one line, a
// LoadResult as JSON. Use `generateLoad` (generator.js) from a program.
//
// A process of its own, because only then its CPU can be told from the server's: `cpuShare` near 1
// would mean that the generator is what saturates. It reads the CPU of the processes in `cpuOf` at the
// very start and end of the measured run, without the warm-up.

import { LoadClient } from "./client.js";
import { cpuSecondsOf, cpuSecondsOfTree, machineCpuSeconds } from "./cpu.js";
import { makeCalls } from "./payloads.js";

/** @import { PayloadSpec } from "./payloads.js" */
/** @import { RunResult } from "./tally.js" */

/**
 * What to do. See `Plan` in run.js for inFlight, seconds, count, rate and sampleEvery.
 * @typedef {object} LoadSpec
 * @property {string} address `127.0.0.1:port` or `unix:/path`
 * @property {PayloadSpec} payloads
 * @property {number} inFlight
 * @property {number} seconds
 * @property {number} [connections]
 * @property {number} [count]
 * @property {number} [rate]
 * @property {number} [sampleEvery]
 * @property {number} [warmupSeconds] the same load, not measured
 * @property {Record<string, string>} [metadata]
 * @property {Record<string, { pid: number, tree?: boolean }>} [cpuOf] processes whose CPU is wanted,
 *   with `tree` together with their descendants
 */

/**
 * CPU used while the measured run lasted.
 * @typedef {object} CpuUse
 * @property {number} seconds
 * @property {number} share of one core
 * @property {number} usPerCall per answered call
 */

/**
 * @typedef {object} LoadCpu
 * @property {number} cpuSeconds of the generator
 * @property {number} cpuShare of one core, of the generator
 * @property {number} cpuUsPerCall of the generator
 * @property {Record<string, CpuUse | null>} cpuOf as asked; null if it couldn't be read
 * @property {CpuUse} others all other processes of the machine: not near 0 means a disturbed measurement
 * @property {RunResult | null} warmup what the warm-up came to
 */

/** What came of it. @typedef {RunResult & LoadCpu} LoadResult */

/**
 * @param {LoadSpec} spec
 * @returns {Promise<LoadResult>}
 */
async function load(spec) {
  const calls = await makeCalls(spec.payloads);
  const client = await LoadClient.open(spec);
  const plan = { ...spec, calls };
  const seconds = spec.warmupSeconds ?? 0;
  const warmup = seconds > 0 ? await client.run({ ...plan, seconds }) : null;
  // The measured run goes on where the warm-up ended: those keys are warm.
  const next = (warmup === null ? 0 : warmup.calls + warmup.errors) % calls.length;
  const measured = { ...plan, calls: [...calls.slice(next), ...calls.slice(0, next)] };
  const before = readCpu(spec);
  const result = await client.run(measured);
  const after = readCpu(spec);
  client.close();
  return { ...result, ...compareCpu(before, after, result), warmup };
}

/** @param {LoadSpec} spec */
function readCpu({ cpuOf = {} }) {
  const { user, system } = process.cpuUsage();
  const processes = Object.entries(cpuOf).map(
    /** @returns {[string, number | undefined]} */
    ([name, { pid, tree = false }]) => [name, tree ? cpuSecondsOfTree(pid) : cpuSecondsOf(pid)],
  );
  return {
    generator: (user + system) / 1e6,
    processes: new Map(processes),
    machine: machineCpuSeconds(),
  };
}

/**
 * @param {ReturnType<typeof readCpu>} before
 * @param {ReturnType<typeof readCpu>} after
 * @param {RunResult} result
 * @returns {Omit<LoadCpu, "warmup">}
 */
function compareCpu(before, after, { wallSeconds, calls }) {
  const use = (/** @type {number} */ seconds) => ({
    seconds: rounded(seconds, 2),
    share: rounded(seconds / wallSeconds, 3),
    usPerCall: rounded((seconds * 1e6) / Math.max(1, calls), 2),
  });
  const generatorSeconds = after.generator - before.generator;
  /** @type {LoadCpu["cpuOf"]} */
  const cpuOf = {};
  let known = generatorSeconds;
  for (const [name, end] of after.processes) {
    const start = before.processes.get(name);
    const seconds = start === undefined || end === undefined ? undefined : end - start;
    cpuOf[name] = seconds === undefined ? null : use(seconds);
    known += seconds ?? 0;
  }
  const generator = use(generatorSeconds);
  return {
    cpuSeconds: generator.seconds,
    cpuShare: generator.share,
    cpuUsPerCall: generator.usPerCall,
    cpuOf,
    others: use(Math.max(0, after.machine - before.machine - known)),
  };
}

/**
 * @param {number} value
 * @param {number} digits
 */
function rounded(value, digits) {
  return Number(value.toFixed(digits));
}

const spec = process.argv[2];
if (spec === undefined) throw new Error("usage: node bench/load/worker.js '<LoadSpec as JSON>'");
process.stdout.write(`${JSON.stringify(await load(JSON.parse(spec)))}\n`);
