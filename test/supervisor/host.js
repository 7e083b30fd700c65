// A host's process: starts a sidecar, says its id on stdout, and stays until it is killed; or, with `stop`,
// restarts and replaces the sidecar, stops it, and has nothing left to do.
import { startSidecar } from "../../dist/supervisor/supervisor.js";

const [, , databaseUrl, stops] = process.argv;
const sidecar = await startSidecar({
  bindings: [{ plugin: "demo" }],
  databaseUrl,
});
process.stdout.write(`${sidecar.pid}\n`);
if (stops) {
  const abort = new AbortController();
  await sidecar.health.until("SERVING", { signal: abort.signal });
  await sidecar.replace();
  await sidecar.stop();
} else {
  setInterval(() => {}, 1_000);
}
