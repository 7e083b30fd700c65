// `serve` with a sidecar that follows a script instead of opening a database: how a process of the
// host's contract starts, stops and fails, without waiting for what makes it do so.
import { setTimeout as sleep } from "node:timers/promises";
import { exitWith } from "../../dist/command/exit.js";
import { ignoreClosedOutput } from "../../dist/command/output.js";
import { serve } from "../../dist/command/serve.js";
import { StartError } from "../../dist/start-error.js";

const bindings = [
  { plugin: "demo", pluginId: "00000000-0000-4000-8000-000000000000", address: "127.0.0.1:41234" },
];

function sidecar({ stop = async () => {}, abort = async () => {} } = {}) {
  const open = setInterval(() => {}, 1000);
  const released = (release) => async () => {
    await release();
    clearInterval(open);
  };
  return { bindings, stop: released(stop), abort: released(abort) };
}

const forever = () => new Promise(() => {});
const say = async (text) => {
  process.stderr.write(`${text}\n`);
};

const scripts = {
  ready: async () => sidecar({ stop: () => say("drained"), abort: () => say("aborted") }),
  "never starts": async (_config, log, signal) => {
    log.info("starting");
    await sleep(1_000_000, undefined, { signal });
  },
  "starts in spite of the signal": async (_config, log, signal) => {
    log.info("starting");
    await sleep(1_000_000, undefined, { signal }).catch(() => {});
    return sidecar({ stop: () => say("drained") });
  },
  "never stops": async () => sidecar({ stop: forever, abort: () => say("aborted") }),
  "never aborts": async () => sidecar({ stop: forever, abort: forever }),
  "can't reach the database": async () => {
    throw new StartError("DATABASE_UNAVAILABLE", "the database can't be reached", {
      exitCode: 69,
      retryable: true,
      hint: "Is it running?",
      cause: new Error("connect postgres://u:hunter2@h/db failed"),
    });
  },
  "has a bug": async () => {
    throw new TypeError("undefined is no function");
  },
  "has a bug in the drain": async () =>
    sidecar({
      stop: async () => {
        throw new TypeError("undefined is no function");
      },
    }),
  "throws at start": async () => {
    setTimeout(() => {
      throw new Error("nobody catches this");
    }, 10);
    await forever();
  },
  "throws when ready": async () => {
    setTimeout(() => {
      throw new Error("nobody catches this");
    }, 50);
    return sidecar({ abort: () => say("aborted") });
  },
  "rejects when ready": async () => {
    setTimeout(() => Promise.reject(new Error("nobody catches this")), 50);
    return sidecar({ abort: () => say("aborted") });
  },
  "logs without end": async (_config, log) => {
    setInterval(() => {
      for (let n = 0; n < 100; n++) log.info({ n, text: "x".repeat(1000) }, "a line");
    }, 1);
    return sidecar();
  },
};

const [script, ...args] = process.argv.slice(2);
const flags = args.includes("--exit-with-parent") ? { exitWithParent: ["true"] } : {};
ignoreClosedOutput();
exitWith(await serve({ flags, operands: [], environment: process.env }, scripts[script]));
