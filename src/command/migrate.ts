import { readDatabaseCommand } from "../config/config.ts";
import { migrateOptions } from "../config/options.ts";
import { resolveOptions } from "../config/resolve.ts";
import { prepareDatabase } from "../database.ts";
import { ExitCode } from "../start-error.ts";
import type { Invocation } from "./commands.ts";
import { print, printError } from "./output.ts";
import { withDatabase } from "./with-database.ts";

/** `plugin-state migrate`: prints the migrations it ran, a line each; on stderr what it is doing. */
export async function migrate({ flags, environment }: Invocation): Promise<number> {
  const resolved = resolveOptions(migrateOptions, flags, environment);
  const read = readDatabaseCommand(resolved, environment);
  const { stateSchema } = read.config;
  const { attachAnew } = resolved.values;
  const onProgress = (message: string) => void printError(`${message}\n`);
  const ran = await withDatabase(read, ({ database, log, signal }) =>
    prepareDatabase(
      database,
      { stateSchema, migrate: true, failFast: true, forServing: false, attachAnew, onProgress },
      log,
      signal,
    ),
  );
  await print(ran.length === 0 ? "the schema is up to date\n" : `${ran.join("\n")}\n`);
  return ExitCode.ok;
}
