// A host: runs a sidecar for each of three plugins, keeps them running, and a worker that uses the first.
// README.md beside it says how to run it.
import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import {
  SidecarError,
  type SidecarEvent,
  type SupervisedSidecar,
  startSidecar,
} from "plugin-state-sidecar/supervisor";

const run = promisify(execFile);
const plugins = ["acme.mail", "acme.notes", "acme.tracker"];
/** One directory for all: the first sidecar starts the embedded PostgreSQL, the others join it. */
const dataDir = resolve(process.argv[2] ?? ".plugin-state/example-host");
/** This file runs as it is, and as dist/host.js. */
const examples = import.meta.url.endsWith(".ts") ? ".." : "../..";
const python = process.env["PYTHON"] ?? "python3";
const workerPauseMs = 2_000;

function print(who: string, text: string): void {
  console.log(`${new Date().toISOString().slice(11, 19)} ${who}: ${text}`);
}

/** Makes the plugin known to the database. Doing it again changes nothing. */
async function register(plugin: string): Promise<void> {
  const require = createRequire(import.meta.url);
  const packageFile = require.resolve("plugin-state-sidecar/package.json");
  const command = resolve(dirname(packageFile), require(packageFile).bin["plugin-state"]);
  await run(process.execPath, [command, "plugin", "add", plugin, "--data-dir", dataDir]);
}

function describe(event: SidecarEvent): string | undefined {
  switch (event.type) {
    case "ready":
      return `ready at ${event.bindings[0]?.address}, process ${event.pid}, after ${Math.round(event.afterMs)} ms`;
    case "start_failed":
      return `did not start: ${event.error.reason}: ${event.error.message}`;
    case "exited":
      return `process ${event.pid} ended with ${event.exit.signal ?? event.exit.code}${event.asked ? "" : ", unasked"}`;
    case "restarting":
      return `restart ${event.restart} in ${Math.round(event.delayMs)} ms`;
    case "addresses_changed":
      return `moved from ${event.from} to ${event.to}`;
    case "health":
      return `health ${event.status}`;
    case "ended":
      return `supervision ended: ${event.end.reason}`;
    case "started":
      return undefined;
  }
}

function supervise(plugin: string, signal: AbortSignal): Promise<SupervisedSidecar> {
  return startSidecar({
    bindings: [{ plugin }],
    dataDir,
    args: ["--log-level", "warn"],
    signal,
    onEvent: (event) => {
      const text = describe(event);
      if (text !== undefined) print(plugin, text);
    },
    onLog: (line) => print(plugin, line),
  });
}

/** Runs the worker again and again; where it finds its state is all that it is told. */
async function work(address: string, signal: AbortSignal): Promise<void> {
  const script = fileURLToPath(new URL(`${examples}/python/worker.py`, import.meta.url));
  const env = { ...process.env, PLUGIN_STATE_ADDRESS: address };
  while (!signal.aborted) {
    try {
      const { stdout } = await run(python, [script], { env, signal });
      print("worker", stdout.split("\n", 2).join("; "));
    } catch (error) {
      if (!signal.aborted) print("worker", `failed: ${reasonOf(error)}`);
    }
    await sleep(workerPauseMs, undefined, { signal }).catch(() => {});
  }
}

/** Of Python's traceback: what the call failed with, or its last line. */
function reasonOf(error: unknown): string {
  const text = error instanceof Error && "stderr" in error ? String(error.stderr) : String(error);
  const lines = text.trim().split("\n");
  return (lines.find((line) => line.includes("details = ")) ?? lines.at(-1) ?? "").trim();
}

async function main(): Promise<void> {
  const stopping = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.once(name, () => {
      print("host", `${name}: stopping`);
      stopping.abort();
    });
  }
  try {
    await host(stopping.signal);
  } finally {
    // Also when one of them can't be started: the others don't stay.
    stopping.abort();
  }
}

async function host(signal: AbortSignal): Promise<void> {
  for (const plugin of plugins) await register(plugin);
  const sidecars = await Promise.all(plugins.map((plugin) => supervise(plugin, signal)));
  print("host", "all are ready; kill one with kill -9 to see it come back, end with Ctrl-C");
  const working = work(sidecars[0]?.bindings[0]?.address ?? "", signal);
  const ends = await Promise.all(sidecars.map(({ onExit }) => onExit));
  await working;
  print("host", `all ended: ${ends.map(({ reason }) => reason).join(", ")}`);
  process.exitCode = ends.every(({ reason }) => reason === "stopped") ? 0 : 1;
}

main().catch((error: unknown) => {
  if (error instanceof Error && error.name === "AbortError") return;
  print("host", error instanceof SidecarError ? `${error.reason}: ${error.message}` : `${error}`);
  process.exitCode = 1;
});
