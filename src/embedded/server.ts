import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { RunAs } from "./account.ts";
import type { Binaries } from "./binaries.ts";
import { askServer, type ServerAddress } from "./database.ts";
import { EmbeddedError, inUseElsewhere } from "./embedded-error.ts";
import type { EmbeddedLog } from "./embedded-log.ts";
import { pause } from "./pause.ts";
import { isPostmasterOf, readServerLock, type ServerLock, sendSignal } from "./postmaster.ts";
import { identity } from "./run.ts";
import { openServerLog, readLogTail, serverLogPath } from "./server-log.ts";
import { serverPort, serverSettings } from "./settings.ts";

/** What a server is started with. */
export interface ServerConfig {
  readonly binaries: Binaries;
  readonly account: RunAs;
  readonly dataDir: string;
  readonly cluster: string;
  readonly socketDir: string;
  /** Win over ours. */
  readonly settings: Readonly<Record<string, string>>;
  readonly log: EmbeddedLog;
}

const firstAskMs = 25;
const maxAskMs = 250;
const stopPollMs = 25;
const watchEveryMs = 1_000;
// A recovering server says "starting up" for as long as it takes; this counts silence alone.
const maxSilenceMs = 60_000;
// The backends of a killed postmaster keep its shared memory until each has noticed, mostly under a
// second.
const maxRetryMs = 15_000;
const retryEveryMs = 250;
// Fast shutdown writes a checkpoint. Immediate shutdown writes nothing: the next start recovers
// from the log; the postmaster itself kills what hangs after 5 seconds.
const stopSteps = [
  { signal: "SIGINT", withinMs: 10_000 },
  { signal: "SIGQUIT", withinMs: 8_000 },
] as const;

// Another server was faster (its lock file is written, or still empty), or a dead one's backends
// aren't gone yet.
const passing = /lock file ".*" (already exists|is empty)|pre-existing shared memory block/;

/** A postgres that we started, and where its lines in the log begin. */
interface Launch {
  readonly process: ChildProcess;
  readonly logStartBytes: number;
}

/**
 * The server of one cluster, whoever started it. postmaster.pid is the truth, and PostgreSQL's own
 * lock: of any number of servers started at once on a cluster one runs and the others end.
 */
export class Server {
  readonly #config: ServerConfig;
  #launch: Launch | undefined;

  constructor(config: ServerConfig) {
    this.#config = config;
  }

  /**
   * Finds the server running, or starts it, and returns when it accepts connections. Waits for one
   * that recovers, and for one that is stopping, to start it again. Throws EmbeddedError
   * `start_failed` or `not_answering`.
   */
  async ensure(signal: AbortSignal): Promise<ServerAddress> {
    const { log } = this.#config;
    let giveUpAt = Number.POSITIVE_INFINITY;
    for (;;) {
      signal.throwIfAborted();
      const lock = await readServerLock(this.#config.cluster);
      if (lock.kind !== "held" && (await this.#isServedUnseen(signal)))
        throw inUseElsewhere(this.#config.socketDir);
      const launch = lock.kind === "held" ? undefined : await this.#start(lock);
      const address = await this.#waitUntilReady(signal, launch);
      if (address !== undefined) {
        if (launch === undefined) log.info({ ...address }, "PostgreSQL runs already: using it");
        return address;
      }
      if (launch === undefined) continue;
      giveUpAt = Math.min(giveUpAt, performance.now() + maxRetryMs);
      await this.#explain(launch, performance.now() > giveUpAt);
      await pause(retryEveryMs, signal);
    }
  }

  /**
   * Returns when the server isn't running; looks each second, and at once when a child of ours
   * ends.
   */
  async gone(signal: AbortSignal): Promise<void> {
    while ((await readServerLock(this.#config.cluster)).kind === "held") {
      await pause(watchEveryMs, signal, { ref: false, wakeOnExitOf: this.#launch?.process });
    }
  }

  /**
   * Stops the server, whoever started it: fast, and when that takes too long, immediately. Never by
   * SIGKILL.
   */
  async stop(): Promise<void> {
    const lock = await readServerLock(this.#config.cluster);
    if (lock.kind === "held") await this.#end(lock.pid);
    const child = this.#launch?.process;
    // One that was started a moment ago and hasn't written postmaster.pid yet.
    if (child?.pid !== undefined && isRunning(child)) await this.#end(child.pid);
  }

  async #start(lock: Exclude<ServerLock, { kind: "held" }>): Promise<Launch> {
    const { account, binaries, dataDir, cluster, socketDir, log } = this.#config;
    const settings = { ...serverSettings(binaries.major, socketDir), ...this.#config.settings };
    const { handle, startBytes } = await openServerLog(serverLogPath(dataDir));
    try {
      const child = spawn(join(binaries.dir, "postgres"), serverArgs(cluster, settings), {
        ...identity(account),
        env: { ...binaries.env, ...(lock.kind === "stale" ? disownPid(lock.pid) : {}) },
        // A session of its own: a terminal's Ctrl-C shall reach the sidecar, which drains first.
        detached: true,
        stdio: ["ignore", handle.fd, handle.fd],
      });
      this.#launch = { process: child, logStartBytes: startBytes };
      await once(child, "spawn");
      child.unref();
      log.info(
        { postgresPid: child.pid, cluster, version: binaries.version, account: account?.name },
        "started PostgreSQL",
      );
      return this.#launch;
    } finally {
      await handle.close();
    }
  }

  /**
   * Whether a server answers whose process we can't see, left by a sidecar that was killed in another
   * container. PostgreSQL's own lock goes by process ids and shared memory, and sees none there.
   */
  async #isServedUnseen(signal: AbortSignal): Promise<boolean> {
    const { cluster, socketDir } = this.#config;
    const answer = await askServer({ socketDir, port: serverPort }, signal);
    return answer !== "silent" && (await readServerLock(cluster)).kind !== "held";
  }

  /** Undefined when no server is left to wait for. */
  async #waitUntilReady(
    signal: AbortSignal,
    launch: Launch | undefined,
  ): Promise<ServerAddress | undefined> {
    let silentSince = performance.now();
    for (let askMs = firstAskMs; ; askMs = Math.min(askMs * 1.25, maxAskMs)) {
      signal.throwIfAborted();
      const lock = await readServerLock(this.#config.cluster);
      if (lock.kind === "held") {
        const address = {
          socketDir: lock.socketDir ?? this.#config.socketDir,
          port: lock.port ?? serverPort,
        };
        const answer = await askServer(address, signal);
        if (answer === "ready") return address;
        if (answer === "busy") silentSince = performance.now();
        if (performance.now() - silentSince > maxSilenceMs) throw silent(lock.pid, address);
      } else if (launch === undefined || !isRunning(launch.process)) return undefined;
      await pause(askMs, signal, { wakeOnExitOf: launch?.process });
    }
  }

  /** Throws why a start failed, unless it is worth another try. */
  async #explain(launch: Launch, giveUp: boolean): Promise<void> {
    const path = serverLogPath(this.#config.dataDir);
    const tail = await readLogTail(path, launch.logStartBytes);
    const { exitCode, signalCode } = launch.process;
    // A server that finds fault with its files or settings exits with 1; this one was told to end,
    // or killed.
    const ended = exitCode === 0 || signalCode !== null;
    if (!giveUp && (ended || passing.test(tail))) return;
    const why = tail === "" ? `it ended with ${signalCode ?? `exit code ${exitCode}`}` : tail;
    throw new EmbeddedError("start_failed", `PostgreSQL didn't start: ${why}`, {
      hint: `its log is ${path}`,
    });
  }

  async #end(pid: number): Promise<void> {
    const { log } = this.#config;
    for (const { signal, withinMs } of stopSteps) {
      log.info({ postgresPid: pid, signal }, "stopping PostgreSQL");
      sendSignal(pid, signal);
      if (await this.#endedWithin(pid, withinMs)) return;
    }
    log.error(
      { pid },
      "PostgreSQL doesn't stop; it is left running, and the next sidecar will use it",
    );
  }

  async #endedWithin(pid: number, ms: number): Promise<boolean> {
    const until = performance.now() + ms;
    while (performance.now() < until) {
      const child = this.#launch?.process;
      const isOurs = child?.pid === pid && isRunning(child);
      if (!isOurs && !(await isPostmasterOf(pid, this.#config.cluster))) return true;
      await pause(stopPollMs);
    }
    return false;
  }
}

function serverArgs(cluster: string, settings: Readonly<Record<string, string>>): string[] {
  return [
    "-D",
    cluster,
    ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
  ];
}

/**
 * Tells postgres that a process id in postmaster.pid is no server's. It goes by kill(2) alone, and
 * refuses to start when another program has the id by now; but it knows that its parents aren't
 * servers, and this is how pg_ctl tells it of its own. Nothing is deleted: a server that started
 * since then has another id, and is noticed.
 */
function disownPid(pid: number): NodeJS.ProcessEnv {
  return { PG_GRANDPARENT_PID: String(pid) };
}

function isRunning(child: ChildProcess): boolean {
  return child.exitCode === null && child.signalCode === null;
}

function silent(pid: number, { socketDir }: ServerAddress): EmbeddedError {
  return new EmbeddedError(
    "not_answering",
    `PostgreSQL runs as process ${pid} but doesn't answer at ${socketDir}`,
    {
      hint: `see its log; if it hangs, end it (kill -QUIT ${pid}) and start again`,
    },
  );
}
