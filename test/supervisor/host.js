// A host's process: starts a sidecar, says its id on stdout, and stays until it is killed.
import { startSidecar } from "../../dist/supervisor/supervisor.js";

const sidecar = await startSidecar({
  bindings: [{ plugin: "demo" }],
  databaseUrl: process.argv[2],
});
process.stdout.write(`${sidecar.pid}\n`);
setInterval(() => {}, 1_000);
