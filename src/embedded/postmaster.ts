import { execFile } from "node:child_process";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { errorCode } from "./embedded-error.ts";

/** What a cluster's postmaster.pid says about its server. */
export type ServerLock =
  /** There is no server. */
  | { readonly kind: "free" }
  /** The server is gone; its process id is nobody's, or another program's by now. */
  | { readonly kind: "stale"; readonly pid: number }
  /** The server runs; `socketDir` and `port` are unknown in its first moments. */
  | {
      readonly kind: "held";
      readonly pid: number;
      readonly socketDir?: string;
      readonly port?: number;
    };

/** Reads who holds a cluster, and checks that the process is alive and is its postmaster. */
export async function readServerLock(cluster: string): Promise<ServerLock> {
  const text = await readFile(join(cluster, "postmaster.pid"), "utf8").catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return "";
    throw error;
  });
  // Line by line: pid, data directory, start time, port, first socket directory, …
  const [pidLine, , , portLine, socketDir] = text.split("\n");
  const pid = Number.parseInt(pidLine ?? "", 10);
  if (!(pid > 0)) return { kind: "free" };
  if (!(await isPostmasterOf(pid, cluster))) return { kind: "stale", pid };
  const port = Number.parseInt(portLine ?? "", 10);
  return socketDir && port > 0 ? { kind: "held", pid, socketDir, port } : { kind: "held", pid };
}

/** Whether a process has this id, be it another user's. */
export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return errorCode(error) === "EPERM";
  }
}

/** Sends a signal, or with 0 none; false if there is no such process of ours. */
export function sendSignal(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}

/**
 * Whether a process is the cluster's server. Process ids are used again, and soon in a container: a
 * live process need not be the one that wrote the file. And one that nobody reaps (our predecessor
 * was killed, process 1 doesn't care) stays alive for kill(2) as a zombie.
 */
export async function isPostmasterOf(pid: number, cluster: string): Promise<boolean> {
  // A cluster's postmaster is its owner's, whom our signals reach.
  if (!sendSignal(pid, 0)) return false;
  return process.platform === "linux" ? linuxPostmaster(pid, cluster) : namedPostgres(pid);
}

async function linuxPostmaster(pid: number, cluster: string): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  const [, name, state] = /^\d+ \((.*)\) (.)/s.exec(status) ?? [];
  if (name !== "postgres" || state === "Z") return false;
  try {
    // A postmaster works in its data directory. Compared by inode: paths differ between mount
    // namespaces.
    const [there, here] = await Promise.all([stat(`/proc/${pid}/cwd`), stat(cluster)]);
    return there.dev === here.dev && there.ino === here.ino;
  } catch (error) {
    // Root without CAP_SYS_PTRACE, Docker's default, can't look: a live postgres under this very id
    // is proof enough.
    return errorCode(error) === "EACCES" || errorCode(error) === "EPERM";
  }
}

async function namedPostgres(pid: number): Promise<boolean> {
  const { stdout } = await promisify(execFile)("ps", [
    "-o",
    "stat=,comm=",
    "-p",
    String(pid),
  ]).catch(() => ({
    stdout: "",
  }));
  return /^[^Z\s]\S*\s.*postgres/.test(stdout.trim());
}
