import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { RunAs } from "./account.ts";
import type { Binaries } from "./binaries.ts";
import { clusterDirs, clusterPath } from "./data-dir.ts";
import { EmbeddedError, errorCode } from "./embedded-error.ts";
import { makePrivateDir } from "./private-dir.ts";
import { run } from "./run.ts";
import { makeWhole } from "./unfinished.ts";

/** The superuser, and the only role, of an embedded cluster. */
export const clusterUser = "plugin_state";

/** What a cluster is made with. */
export interface ClusterRequest {
  readonly dataDir: string;
  readonly binaries: Binaries;
  readonly account: RunAs;
  readonly signal: AbortSignal;
}

/**
 * Returns the path of the cluster in the data directory, after making one if there is none. Throws
 * EmbeddedError `data_dir_version` when only another major version's is there (nothing is upgraded)
 * and `initdb_failed`.
 */
export async function ensureCluster(request: ClusterRequest): Promise<string> {
  const path = clusterPath(request.dataDir, request.binaries.major);
  await refuseOtherVersions(request);
  if ((await versionOf(path)) === undefined)
    await makeWhole(path, request.signal, (unfinished) => initdb(unfinished, request));
  const version = await versionOf(path);
  if (version !== String(request.binaries.major))
    throw otherVersion(path, version ?? "unknown", request.binaries);
  return path;
}

async function refuseOtherVersions({ dataDir, binaries }: ClusterRequest): Promise<void> {
  const found = await clusterDirs(dataDir);
  const newest = found[0];
  if (newest === undefined || found.some(({ major }) => major === binaries.major)) return;
  throw otherVersion(newest.path, String(newest.major), binaries);
}

function otherVersion(path: string, version: string, binaries: Binaries): EmbeddedError {
  return new EmbeddedError(
    "data_dir_version",
    `${path} holds data of PostgreSQL ${version}; this sidecar brings PostgreSQL ${binaries.version} and upgrades nothing`,
    {
      hint: `dump it with PostgreSQL ${version} and load it into a new data directory, or move it away to start empty`,
    },
  );
}

/**
 * The major version in a cluster's PG_VERSION; undefined where nothing is yet, "unknown" where
 * something else is.
 */
async function versionOf(path: string): Promise<string | undefined> {
  try {
    return (await readFile(join(path, "PG_VERSION"), "utf8")).trim();
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
    const inside = await readdir(path).catch(() => []);
    return inside.length === 0 ? undefined : "unknown";
  }
}

async function initdb(
  directory: string,
  { binaries, account, signal }: ClusterRequest,
): Promise<void> {
  await makePrivateDir(directory, account);
  const { code, output } = await run(join(binaries.dir, "initdb"), initdbArgs(directory), {
    account,
    env: binaries.env,
    signal,
  });
  if (code !== 0) throw initdbFailed(output);
}

function initdbArgs(directory: string): string[] {
  return [
    `--pgdata=${directory}`,
    `--username=${clusterUser}`,
    // What a prefix listing and a byte-order index need, the same on every host, whatever its
    // locales.
    "--encoding=UTF8",
    "--locale=C",
    "--lc-messages=C",
    // The 0700 socket directory is the lock: whoever is in it is the server's account or root.
    // There is no TCP.
    "--auth-local=trust",
    "--auth-host=reject",
    // On by default from 18.
    "--data-checksums",
    "--no-instructions",
  ];
}

function initdbFailed(output: string): EmbeddedError {
  const lines = output.trim().split("\n").slice(-5).join("\n");
  const nameless = output.includes("could not look up effective user ID");
  return new EmbeddedError("initdb_failed", `initdb could not make a database cluster: ${lines}`, {
    hint: nameless
      ? "initdb wants its user to have a name: give the uid an entry in /etc/passwd, or set DATABASE_URL"
      : "see the lines above; otherwise set DATABASE_URL",
  });
}
