// A host's process: starts a sidecar, says its id on stdout, and stays until it is killed; or, with `stop`,
// replaces the sidecar, stops it, and has nothing left to do.
import { setImmediate as nextTurn } from "node:timers/promises";
import { startSidecar } from "../../dist/supervisor/supervisor.js";

const [, , databaseUrl, stops] = process.argv;
const sidecar = await startSidecar({ bindings: [{ plugin: "demo" }], databaseUrl });
process.stdout.write(`${sidecar.pid}\n`);
if (stops) {
  await sidecar.health.until("SERVING");
  await sidecar.replace();
  await sidecar.stop();
  // Handles close in the turns after they were told to.
  for (let turn = 0; turn < 100; turn++) await nextTurn();
  const left = process.getActiveResourcesInfo().filter((name) => /Timeout|Process|TCP/.test(name));
  if (left.length > 0) throw new Error(`left behind: ${left.join(", ")}`);
} else {
  setInterval(() => {}, 1_000);
}
