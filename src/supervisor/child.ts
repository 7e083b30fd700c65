import { type ChildProcess, type StdioOptions, spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { errorCode } from "../rpc/listen-error.ts";
import type { BoundHandle } from "./held-sockets.ts";
import { LineSplitter } from "./line-splitter.ts";
import { LogLines } from "./log-lines.ts";
import { parseReadyLine, type ReadyLine } from "./ready-line.ts";
import { finalExitCodes } from "./restart-policy.ts";
import { describeExit, type ProcessExit, SidecarError } from "./sidecar-error.ts";

/** How one process is started. */
export interface ChildOptions {
  /** The program, then its arguments. */
  readonly command: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string | undefined;
  /** Inherited as descriptors 3, 4, … */
  readonly sockets: readonly BoundHandle[];
  /** Gives it a pipe as stdin, which ends when this process does. */
  readonly holdsStdin: boolean;
  readonly startTimeoutMs: number;
  /** Texts to keep out of the log. */
  readonly secrets: readonly string[];
  readonly onLog: (line: string) => void;
}

/** A ready line takes some 200 bytes for each binding. */
const maxReadyLineChars = 64 * 1024;

/** What a process has written arrives this much after its exit at the latest, or never. */
const lastOutputMs = 500;

/** A process that says that its start failed, or closes stdout, ends by itself within this time. */
const exitGraceMs = 2_000;

/** One process of the sidecar, from its start to its exit. */
export class SidecarChild {
  readonly #process: ChildProcess;
  readonly #startedAt = performance.now();
  /** Resolves when it has ended and what it said was read. Never rejects. */
  readonly exited: Promise<ProcessExit>;
  /** Rejects with {@link SidecarError} when it isn't going to be ready; the process is gone then. */
  readonly ready: Promise<ReadyLine>;
  #readyAt: number | undefined;
  #stopping: Promise<ProcessExit> | undefined;

  /** Throws {@link SidecarError} when the system refuses at once; else `ready` says it. */
  constructor(options: ChildOptions) {
    const child = spawnDetached(options);
    this.#process = child;
    this.exited = untilExited(child);
    if (child.stderr) readLog(child.stderr, options);
    this.ready = this.#becomeReady(options.startTimeoutMs);
    // Whoever waits for it is told; nobody has to.
    this.ready.catch(() => {});
  }

  /** Undefined when it couldn't be started. */
  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** Milliseconds from its start until it was ready. */
  get startMs(): number {
    return (this.#readyAt ?? performance.now()) - this.#startedAt;
  }

  /** For how many milliseconds it has been ready; 0 if it isn't. */
  get readyMs(): number {
    return this.#readyAt === undefined ? 0 : performance.now() - this.#readyAt;
  }

  /** Whether `stop` was called. */
  get isStopping(): boolean {
    return this.#stopping !== undefined;
  }

  /** Lets it drain, for `timeoutMs` milliseconds; then kills it. Idempotent. */
  stop(timeoutMs: number): Promise<ProcessExit> {
    this.#stopping ??= this.#stop(timeoutMs);
    return this.#stopping;
  }

  async #stop(timeoutMs: number): Promise<ProcessExit> {
    const { stdin } = this.#process;
    // On Windows a signal only kills; the end of stdin is what is heard there.
    if (process.platform === "win32" && stdin !== null) stdin.end();
    else this.#process.kill("SIGTERM");
    return this.#exitWithin(timeoutMs);
  }

  async #exitWithin(ms: number): Promise<ProcessExit> {
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), ms);
    const exit = await this.exited;
    clearTimeout(timer);
    return exit;
  }

  async #becomeReady(timeoutMs: number): Promise<ReadyLine> {
    try {
      const line = parseReadyLine(await this.#firstLine(timeoutMs));
      this.#readyAt = performance.now();
      return line;
    } catch (error) {
      throw error instanceof SidecarError ? await this.#failed(error) : error;
    }
  }

  /** Ends what is left of it, and adds to the error how it ended. */
  async #failed(error: SidecarError): Promise<SidecarError> {
    const endsItself = !killedFor.has(error.reason);
    if (!endsItself) this.#process.kill("SIGKILL");
    const exit = await this.#exitWithin(exitGraceMs);
    if (!endsItself || exit.code === null) return error;
    return new SidecarError(error.reason, error.message, {
      retryable: error.retryable && !finalExitCodes.has(exit.code),
      exit,
      cause: error.cause,
    });
  }

  async #firstLine(timeoutMs: number): Promise<string> {
    const { stdout } = this.#process;
    const timers: NodeJS.Timeout[] = [];
    const reading = new Promise<string>((resolve, reject) => {
      const splitter = new LineSplitter(maxReadyLineChars, (line, isCut) =>
        isCut ? reject(tooLong()) : resolve(line),
      );
      stdout?.on("data", (bytes: Buffer) => {
        splitter.push(bytes);
        if (splitter.isOverfull) reject(tooLong());
      });
      stdout?.once("end", () => {
        splitter.end();
        timers.push(setTimeout(() => reject(stdoutClosed()), exitGraceMs));
      });
      timers.push(setTimeout(() => reject(tooSlow(timeoutMs)), timeoutMs));
      this.#process.once("error", (error) => reject(cannotSpawn(error)));
      void this.exited.then((exit) => reject(endedSilently(exit)));
    });
    try {
      return await reading;
    } finally {
      for (const timer of timers) clearTimeout(timer);
      // What it says later is nobody's, and must not fill the pipe.
      stdout?.removeAllListeners("data").removeAllListeners("end").resume();
    }
  }
}

/** Starts that are given up, with a process that may go on. */
const killedFor: ReadonlySet<string> = new Set([
  "START_TIMEOUT",
  "BAD_READY_LINE",
  "STDOUT_CLOSED",
  "UNSUPPORTED_PROTOCOL",
]);

/**
 * In a process group of its own: Ctrl-C in the host's terminal is for the host, which then stops its
 * sidecars in its own order.
 */
function spawnDetached(options: ChildOptions): ChildProcess {
  const [program, ...args] = options.command;
  const stdio: StdioOptions = [options.holdsStdin ? "pipe" : "ignore", "pipe", "pipe"];
  // Node takes its own handles here; their type isn't public.
  for (const socket of options.sockets) stdio.push(socket as unknown as Readable);
  try {
    const child = spawn(program, args, {
      cwd: options.cwd,
      env: options.env,
      stdio,
      detached: process.platform !== "win32",
      windowsHide: true,
    });
    // Also when a signal can't be sent any more.
    child.on("error", () => {});
    child.stdin?.on("error", () => {});
    return child;
  } catch (error) {
    throw cannotSpawn(error);
  }
}

/** The exit, and that the pipes are closed; a process it left behind may hold their other ends. */
function untilExited(child: ChildProcess): Promise<ProcessExit> {
  return new Promise((resolve) => {
    child.once("error", () => {
      if (child.pid === undefined) resolve({ code: null, signal: null });
    });
    child.once("exit", (code, signal) => {
      const finish = () => {
        clearTimeout(timer);
        for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.destroy();
        resolve({ code, signal });
      };
      const timer = setTimeout(finish, lastOutputMs);
      child.once("close", finish);
    });
  });
}

function readLog(stderr: Readable, { secrets, onLog }: ChildOptions): void {
  const lines = new LogLines(secrets, onLog);
  stderr.on("data", (bytes: Buffer) => lines.push(bytes));
  stderr.once("close", () => lines.end());
}

/** Of a system that lacks something now, and may have it later. */
const passingShortages = new Set(["EAGAIN", "EMFILE", "ENFILE", "ENOMEM"]);

function cannotSpawn(error: unknown): SidecarError {
  const why = error instanceof Error ? error.message : String(error);
  return new SidecarError("CANNOT_SPAWN", `the sidecar's command can't be run: ${why}`, {
    retryable: passingShortages.has(errorCode(error)),
    cause: error,
  });
}

/** A process that ended, ready or not, without saying why. */
export function endedSilently(exit: ProcessExit): SidecarError {
  return new SidecarError("EXITED", `the sidecar ended: ${describeExit(exit)}`, {
    retryable: exit.code === null || !finalExitCodes.has(exit.code),
    exit,
  });
}

function tooSlow(timeoutMs: number): SidecarError {
  const message = `the sidecar was neither ready nor failed after ${timeoutMs} ms`;
  return new SidecarError("START_TIMEOUT", message, { retryable: true });
}

function tooLong(): SidecarError {
  const message = `the sidecar's first line on stdout is longer than ${maxReadyLineChars} characters`;
  return new SidecarError("BAD_READY_LINE", message, { retryable: true });
}

function stdoutClosed(): SidecarError {
  return new SidecarError("STDOUT_CLOSED", "the sidecar closed stdout before it was ready", {
    retryable: true,
  });
}
