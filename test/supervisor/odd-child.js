// A child of the supervisor that does what its first argument says: what a real sidecar hardly ever does.
import { appendFileSync, closeSync, fstatSync, readFileSync } from "node:fs";

const [behaviour, ...args] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${line}\n`);
const log = (line) => process.stderr.write(`${line}\n`);
const stay = () => setInterval(() => {}, 1_000);
const endWithParent = () => process.stdin.on("end", () => process.exit()).resume();

const ready = (more = {}) => {
  const bindings = [{ plugin: "demo", pluginId: "1", address: "127.0.0.1:9" }];
  const line = { event: "ready", protocol: 1, pid: process.pid, version: "1.2.3", bindings };
  say(JSON.stringify({ ...line, health: "grpc.health.v1", ...more }));
  endWithParent();
  stay();
};
const failed = (reason, retryable, code) => {
  say(JSON.stringify({ event: "failed", reason, message: `it was ${reason}`, retryable }));
  process.exitCode = code;
};

const behaviours = {
  ready,
  "ready and ends": (code) => {
    ready();
    setTimeout(() => process.exit(Number(code)), 20);
  },
  "ready and talks on": () => {
    ready();
    const text = "x".repeat(64 * 1024);
    for (let n = 0; n < 40; n++) say(text);
    setTimeout(() => log("said all"), 20);
  },
  "ready and deaf": () => {
    process.on("SIGTERM", () => log("heard and ignored"));
    ready();
  },
  "ready and floods": (secret, lines) => {
    for (let n = 0; n < Number(lines); n++) log(`{"n":${n},"secret":"${secret}"}`);
    log("y".repeat(100_000));
    ready();
  },
  "ready and tells": () => {
    ready();
    const sockets = [3, 4, 5].filter(isSocket);
    log(JSON.stringify({ argv: process.argv.slice(3), env: process.env, sockets }));
  },
  "another protocol": () => ready({ protocol: 2 }),
  "an empty address": () => ready({ bindings: [{ plugin: "p", pluginId: "1", address: "" }] }),
  "an odd address": () => ready({ bindings: [{ plugin: "p", pluginId: "1", address: "a b" }] }),
  "no bindings": () => ready({ bindings: undefined }),
  "ends with": (code) => process.exit(Number(code)),
  "fails retryably": () => failed("DATABASE_UNAVAILABLE", true, 69),
  "fails for good": () => failed("BUG", false, 70),
  "fails retryably with 78": () => failed("ODD", true, 78),
  "fails and hangs": () => {
    failed("BUG", false, 70);
    stay();
  },
  "says nothing": () => {
    process.on("SIGTERM", () => {});
    stay();
  },
  garbage: () => {
    say("Hello, I am a sidecar!");
    stay();
  },
  "no line end": () => {
    process.stdout.write("z".repeat(1024 * 1024));
    stay();
  },
  "closes stdout": () => {
    closeSync(1);
    stay();
  },
  // Counts its starts in a file: fails the first so many times, then is ready.
  "fails at first": (file, times) => {
    appendFileSync(file, ".");
    if (readCount(file) <= Number(times)) process.exit(1);
    ready();
  },
};

function isSocket(descriptor) {
  try {
    return fstatSync(descriptor).isSocket();
  } catch {
    return false;
  }
}

function readCount(file) {
  return readFileSync(file, "utf8").length;
}

behaviours[behaviour](...args);
