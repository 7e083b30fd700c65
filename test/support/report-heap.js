// Loaded into the sidecar by `node --import`: on SIGUSR2 it says on stderr how large its heap is after
// collections. One isn't enough: what is held by weak tables, or freed by native code, goes one by one.
import { setTimeout as sleep } from "node:timers/promises";

const collections = 5;

process.on("SIGUSR2", async () => {
  for (let n = 0; n < collections; n++) {
    globalThis.gc();
    await sleep(50);
  }
  process.stderr.write(`${JSON.stringify({ heapUsed: process.memoryUsage().heapUsed })}\n`);
});
