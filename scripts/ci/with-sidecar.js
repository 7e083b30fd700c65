// Runs a command beside a real sidecar on an embedded PostgreSQL; fails unless both end well.
//
//   node scripts/ci/with-sidecar.js [options] -- COMMAND [ARG…]
//     --start "…"        how to start the sidecar (default: node dist/main.js serve)
//     --default-data-dir let the sidecar choose its data directory (default: a temporary one)
//     --signal SIGINT    what to stop it with (default: SIGTERM)
//     --group            send the signal to all its processes, as a terminal's Ctrl-C does
//
// COMMAND finds the sidecar at PLUGIN_STATE_ADDRESS (HOST:PORT) and at the path PLUGIN_STATE_SOCKET.
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

/** `npm start` compiles first. */
const startTimeoutMs = 120_000;
/** The sidecar's own drain takes 8 s at most, stopping PostgreSQL a moment more. */
const stopTimeoutMs = 20_000;

const { values: options, positionals: command } = parseArgs({
  allowPositionals: true,
  options: {
    start: { type: "string", default: "node dist/main.js serve" },
    "default-data-dir": { type: "boolean", default: false },
    signal: { type: "string", default: "SIGTERM" },
    group: { type: "boolean", default: false },
  },
});

const directory = mkdtempSync(join(tmpdir(), "sidecar-"));
// The sidecar started as root runs PostgreSQL as another account, which has to get through.
chmodSync(directory, 0o711);
const socket = join(directory, "run", "demo.sock");
const stderrFile = join(directory, "stderr");

/** Lines of the sidecar's stdout that are JSON; npm's own banner isn't. */
const eventLines = [];
const sidecar = startSidecar();
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => abandon(`got ${signal}`));

try {
  const { address } = await ready();
  const status = await runBeside(address);
  await stop();
  requireOneEvent();
  requireNothingLeft();
  rmSync(directory, { recursive: true, force: true });
  process.exitCode = status;
} catch (error) {
  abandon(error instanceof Error ? error.message : String(error));
}

function startSidecar() {
  const [program, ...args] = options.start.split(" ");
  const child = spawn(program, args, {
    // A process group of its own, for --group.
    detached: true,
    env: sidecarEnvironment(),
    stdio: ["ignore", "pipe", openSync(stderrFile, "w")],
  });
  child.on("error", (error) => abandon(`can't start: ${error.message}`));
  createInterface({ input: child.stdout }).on("line", (line) => {
    if (line.startsWith("{")) eventLines.push(line);
  });
  return child;
}

/** Ours, without what would lead the sidecar elsewhere. */
function sidecarEnvironment() {
  const kept = Object.entries(process.env).filter(
    ([name]) => name !== "DATABASE_URL" && !name.startsWith("PLUGIN_STATE_"),
  );
  return {
    ...Object.fromEntries(kept),
    PLUGIN_STATE_PLUGIN: "demo,demo",
    PLUGIN_STATE_LISTEN: `127.0.0.1:0,unix:${socket}`,
    ...(options["default-data-dir"] ? {} : { PLUGIN_STATE_DATA_DIR: join(directory, "data") }),
  };
}

async function ready() {
  const deadline = Date.now() + startTimeoutMs;
  while (eventLines.length === 0) {
    if (hasEnded()) throw new Error("it ended before it was ready");
    if (Date.now() > deadline) throw new Error(`not ready after ${startTimeoutMs} ms`);
    await sleep(50);
  }
  const event = JSON.parse(eventLines[0]);
  if (event.event !== "ready") throw new Error(`it said ${eventLines[0]}`);
  return event.bindings[0];
}

async function runBeside(address) {
  const [program, ...args] = command;
  const child = spawn(program, args, {
    env: { ...process.env, PLUGIN_STATE_ADDRESS: address, PLUGIN_STATE_SOCKET: socket },
    stdio: ["ignore", "inherit", "inherit"],
  });
  const [code] = await once(child, "close");
  return code ?? 1;
}

async function stop() {
  if (hasEnded()) throw new Error("it ended by itself");
  process.kill(options.group ? -sidecar.pid : sidecar.pid, options.signal);
  const ended = await Promise.race([
    once(sidecar, "close").then(() => true),
    sleep(stopTimeoutMs, false, { ref: false }),
  ]);
  if (!ended) throw new Error(`${options.signal} didn't end it within ${stopTimeoutMs} ms`);
  if (sidecar.exitCode !== 0) {
    throw new Error(`exit code ${sidecar.exitCode ?? sidecar.signalCode} after ${options.signal}`);
  }
}

function requireOneEvent() {
  if (eventLines.length !== 1) throw new Error(`more than one line:\n${eventLines.join("\n")}`);
}

/** No process of it, no PostgreSQL of it, no socket. */
function requireNothingLeft() {
  const left = [...processesOfGroup(), ...postgresProcesses()];
  if (left.length > 0) throw new Error(`it left processes behind:\n${left.join("\n")}`);
  if (statSync(socket, { throwIfNoEntry: false })) throw new Error("it left its socket behind");
}

function processesOfGroup() {
  try {
    process.kill(-sidecar.pid, 0);
    return [`process group ${sidecar.pid}`];
  } catch {
    return [];
  }
}

/** Finds the servers whose data directory is ours by their command lines, which name it. */
function postgresProcesses() {
  const [home = "", ours] = [process.env["HOME"], directory];
  const dataDir = options["default-data-dir"] ? join(home, ".local", "state") : ours;
  return processes().filter((line) => line.includes("postgres") && line.includes(` ${dataDir}/`));
}

function processes() {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((pid) => `${pid} ${commandLine(pid)}`);
}

function commandLine(pid) {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return ""; // It ended meanwhile.
  }
}

function hasEnded() {
  return sidecar.exitCode !== null || sidecar.signalCode !== null;
}

/** Tells why, shows the sidecar's log, and leaves nothing running. */
function abandon(why) {
  console.error(`with-sidecar: ${why}\n--- the sidecar's stderr:\n${readFileSync(stderrFile)}`);
  for (const line of [`-${sidecar.pid}`, ...postgresProcesses()]) {
    try {
      process.kill(Number.parseInt(line, 10), "SIGKILL");
    } catch {
      // It has ended.
    }
  }
  rmSync(directory, { recursive: true, force: true });
  process.exit(1);
}
