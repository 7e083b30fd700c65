import { join } from "node:path";
import type { RunAs } from "./account.ts";
import { findPackage } from "./binary-package.ts";
import { EmbeddedError, errorCode } from "./embedded-error.ts";
import type { EmbeddedLog } from "./embedded-log.ts";
import { linkLibraries, missingLinks } from "./library-links.ts";
import { copyPackage } from "./package-copy.ts";
import { isClosedTo } from "./reach.ts";
import { run } from "./run.ts";

/** PostgreSQL programs that run here, for the account that is to run them. */
export interface Binaries {
  /** The directory of `initdb` and `postgres`. */
  readonly dir: string;
  /** The whole environment they get. */
  readonly env: NodeJS.ProcessEnv;
  /** `18` of `18.4`. */
  readonly major: number;
  /** `18.4`. */
  readonly version: string;
}

/** What is needed to find programs that run. */
export interface BinariesRequest {
  /** Use these instead of the npm package's. */
  readonly binDir: string | undefined;
  /** Where library links and copies go; nothing is ever written in node_modules. */
  readonly dataDir: string;
  readonly account: RunAs;
  readonly log: EmbeddedLog;
  readonly signal: AbortSignal;
}

/**
 * Finds the programs and proves, by `postgres --version` as the account, that they run. The npm
 * package's may need their library links made or, where the account can't reach them (a project
 * under /root), a copy in the data directory. Throws EmbeddedError `binaries_missing`,
 * `binaries_unusable`.
 */
export async function prepareBinaries(request: BinariesRequest): Promise<Binaries> {
  const { binDir, dataDir, account, log, signal } = request;
  if (binDir !== undefined) return verified(binDir, environment(), request);
  const found = await findPackage();
  const missing = await missingLinks(found);
  // macOS keeps DYLD_LIBRARY_PATH from what /bin/sh starts, and initdb starts postgres that way.
  const needsOwnLinks = missing.length > 0 && process.platform === "darwin";
  if (needsOwnLinks || (await isClosedTo(account, join(found.native, "bin", "postgres")))) {
    const native = await copyPackage(found, dataDir, log, signal);
    return verified(join(native, "bin"), environment(), request);
  }
  const libraries = missing.length > 0 ? await linkLibraries(found, missing, dataDir) : undefined;
  return verified(join(found.native, "bin"), environment(libraries), request);
}

/**
 * Little of our own environment: it may hold secrets (DATABASE_URL, tokens), which an account's
 * /proc/<pid>/environ would show, and PG* variables, which would change what initdb and postgres
 * do.
 */
function environment(libraries?: string): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { PATH: process.env["PATH"] ?? "/usr/bin:/bin", LC_ALL: "C" };
  const libraryPath = [libraries, process.env["LD_LIBRARY_PATH"]].filter(Boolean).join(":");
  if (libraryPath !== "") env["LD_LIBRARY_PATH"] = libraryPath;
  return env;
}

async function verified(
  dir: string,
  env: NodeJS.ProcessEnv,
  { account, signal }: BinariesRequest,
): Promise<Binaries> {
  const file = join(dir, "postgres");
  const { output } = await run(file, ["--version"], { account, env, signal }).catch(
    (error: unknown) => {
      if (signal.aborted) throw error;
      throw unusable(file, errorCode(error) ?? String(error), account, error);
    },
  );
  const [, version, major] = /^postgres \(PostgreSQL\) ((\d+)\S*)/.exec(output) ?? [];
  if (version === undefined) throw unusable(file, output.trim(), account);
  return { dir, env, version, major: Number(major) };
}

function unusable(file: string, why: string, account: RunAs, cause?: unknown): EmbeddedError {
  const as = account === undefined ? "" : ` as ${account.name}`;
  return new EmbeddedError("binaries_unusable", `${file} doesn't run${as}: ${why}`, {
    hint: "the npm binaries need glibc (on Alpine use a glibc image); otherwise set DATABASE_URL",
    cause,
  });
}
