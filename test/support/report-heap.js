// Loaded into the sidecar by `node --import`: it says on stderr how much memory it uses after collections, on
// SIGUSR2 full ones, on SIGWINCH of what is young alone.
import { setTimeout as sleep } from "node:timers/promises";

// One isn't enough: what is held by weak tables, or freed by native code, goes one by one.
const fullCollections = 5;
// What survives the first is collected by the second.
const youngCollections = 2;

process.on("SIGUSR2", async () => {
  for (let n = 0; n < fullCollections; n++) {
    globalThis.gc();
    await sleep(50);
  }
  report();
});

process.on("SIGWINCH", () => {
  for (let n = 0; n < youngCollections; n++) {
    globalThis.gc({ type: "minor" });
  }
  report();
});

function report() {
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  process.stderr.write(`${JSON.stringify({ heapUsed, arrayBuffers })}\n`);
}
