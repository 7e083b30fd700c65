// @ts-check
// Measures the baseline: `node bench/echo-baseline.js [seconds]`, or `measureEcho` from a program.

import { fileURLToPath } from "node:url";
import { Child } from "./load/child.js";
import { generateLoad } from "./load/generator.js";

/** @import { LoadSpec } from "./load/worker.js" */

const SERVER = new URL("echo-server.js", import.meta.url);
const START_TIMEOUT_MS = 10_000;

/**
 * Loads a fresh echo server with empty calls; its CPU is `cpuOf.server` of the result.
 * @param {Omit<LoadSpec, "address" | "payloads" | "cpuOf">} load
 */
export async function measureEcho(load) {
  const server = new Child(SERVER);
  try {
    const ready = await server.firstLine(START_TIMEOUT_MS);
    const { address } = /** @type {{ address: string }} */ (ready); // as echo-server.js prints it
    return await generateLoad({
      ...load,
      address,
      payloads: { kind: "empty", path: "/bench.Echo/Echo" },
      cpuOf: { server: { pid: server.pid } },
    });
  } finally {
    await server.stop();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const seconds = Number(process.argv[2] ?? 10);
  for (const connections of [1, 2]) {
    const load = { inFlight: 64, connections, seconds, warmupSeconds: 3, sampleEvery: 100 };
    console.log(connections, await measureEcho(load));
  }
}
