import { chmod, mkdir, readdir, realpath } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { EmbeddedError, errorCode } from "./embedded-error.ts";

/**
 * Where the embedded server keeps its data when nobody says: per system for root, per user for
 * everybody else.
 */
export function defaultDataDir(): string {
  if (process.geteuid?.() === 0) return "/var/lib/plugin-state";
  switch (process.platform) {
    case "darwin":
      return join(homedir(), "Library", "Application Support", "plugin-state");
    case "win32":
      return join(
        process.env["LOCALAPPDATA"] ?? join(homedir(), "AppData", "Local"),
        "plugin-state",
      );
    default:
      return join(
        process.env["XDG_STATE_HOME"] || join(homedir(), ".local", "state"),
        "plugin-state",
      );
  }
}

/**
 * Makes the data directory, with its parents, and returns its real path. One that exists is left as
 * it is. Root keeps it (0711, so that the server's account gets through to its own directories in
 * it): that account could otherwise lead root astray with a symbolic link under a name that root
 * writes to.
 */
export async function makeDataDir(dataDir: string): Promise<string> {
  const path = resolve(dataDir);
  const mode = process.geteuid?.() === 0 ? 0o711 : 0o700;
  for (const made of await makeWithParents(path, mode)) {
    // Again, because mkdir's mode is cut by the umask.
    await chmod(made, mode);
  }
  return realpath(path);
}

/**
 * Makes a directory and the parents it lacks, and returns those it made. Not by mkdir's `recursive`,
 * which never returns where a file system says ENOENT to every new name (/proc; Node 20 to 24).
 */
async function makeWithParents(path: string, mode: number): Promise<string[]> {
  const made = await makeOne(path, mode);
  if (made !== "no parent") return made;
  const parents = dirname(path) === path ? [] : await makeWithParents(dirname(path), mode);
  const again = await makeOne(path, mode);
  if (again !== "no parent") return [...parents, ...again];
  throw new EmbeddedError("data_dir_unusable", `can't make the data directory ${path}`, {
    hint: "choose a directory that the sidecar may write, or set DATABASE_URL",
  });
}

async function makeOne(path: string, mode: number): Promise<string[] | "no parent"> {
  try {
    await mkdir(path, { mode });
    return [path];
  } catch (error) {
    if (errorCode(error) === "ENOENT") return "no parent";
    // Something of that name is there; whether it's a directory shows when it's used.
    if (errorCode(error) === "EEXIST") return [];
    throw error;
  }
}

/** A cluster found in a data directory. */
export interface ClusterDir {
  readonly path: string;
  readonly major: number;
}

/** Where the cluster of a major version is. */
export function clusterPath(dataDir: string, major: number): string {
  return join(dataDir, `pg${major}`);
}

/**
 * The clusters in a data directory, newest major version first; none if there is no such directory.
 */
export async function clusterDirs(dataDir: string): Promise<ClusterDir[]> {
  const names = await readdir(dataDir).catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  });
  return names
    .flatMap((name) => {
      const major = /^pg(\d+)$/.exec(name)?.[1];
      return major === undefined ? [] : [{ path: join(dataDir, name), major: Number(major) }];
    })
    .sort((a, b) => b.major - a.major);
}
