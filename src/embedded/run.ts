import { type SpawnOptions, spawn } from "node:child_process";
import type { RunAs } from "./account.ts";

/** How a program that ran to its end ended. */
export interface Finished {
  /** Exit code, or null when a signal ended it. */
  readonly code: number | null;
  /** Standard output and standard error, as they came. */
  readonly output: string;
}

/** Who runs a program, in which environment, until when. */
export interface RunOptions {
  readonly account: RunAs;
  readonly env: NodeJS.ProcessEnv;
  readonly signal: AbortSignal;
}

/**
 * Runs a program to its end. Rejects when it can't be started (the system error, e.g. EACCES) and
 * when the signal aborts; then only after the program has ended, so that what it wrote can be
 * removed.
 */
export function run(file: string, args: readonly string[], options: RunOptions): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      ...identity(options.account),
      env: options.env,
      stdio: ["ignore", "pipe", "pipe"],
      signal: options.signal,
    });
    let output = "";
    let failure: unknown;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        output += text;
      });
    }
    child.on("error", (error) => {
      failure = options.signal.aborted ? options.signal.reason : error;
      if (child.pid === undefined) reject(failure);
    });
    child.on("close", (code) =>
      failure === undefined ? resolve({ code, output }) : reject(failure),
    );
  });
}

/**
 * The part of spawn's options that says who runs it. libuv also calls setgroups(0), so root's
 * supplementary groups don't leak (seen in /proc/<pid>/status). The working directory is one that
 * every account can enter.
 */
export function identity(account: RunAs): SpawnOptions {
  return account === undefined ? { cwd: "/" } : { cwd: "/", uid: account.uid, gid: account.gid };
}
