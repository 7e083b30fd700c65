// Loaded into the sidecar by `node --import`: on SIGUSR2 it says on stderr how large its heap is after a
// collection.
process.on("SIGUSR2", () => {
  globalThis.gc();
  process.stderr.write(`${JSON.stringify({ heapUsed: process.memoryUsage().heapUsed })}\n`);
});
