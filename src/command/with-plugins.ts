import type { DatabaseCommandConfig, Read } from "../config/config.ts";
import { defaultDatabaseTimeoutMs } from "../config/limits.ts";
import { databaseStartError, prepareDatabase } from "../database.ts";
import { Plugins } from "../postgres/plugins.ts";
import { Pool } from "../postgres/pool.ts";
import { withDatabase } from "./with-database.ts";

/**
 * Opens the registry of plugins for `work`. The schema of a given database is checked, not changed:
 * looking at a list must not migrate what older sidecars use. The embedded one belongs to us.
 */
export function withPlugins<T>(
  read: Read<DatabaseCommandConfig>,
  work: (plugins: Plugins) => Promise<T>,
): Promise<T> {
  const { database: which, stateSchema } = read.config;
  const migrate = which.kind === "embedded";
  const preparation = { stateSchema, migrate, failFast: true, forServing: false };
  return withDatabase(read, async ({ database, log, signal, closers }) => {
    await prepareDatabase(database, preparation, log, signal);
    const pool = new Pool({
      connection: database.connection,
      connections: 1,
      timeoutMs: defaultDatabaseTimeoutMs,
      log,
      onConnectionFailure: () => {},
    });
    closers.add(() => pool.close());
    try {
      return await work(new Plugins(pool, stateSchema));
    } catch (error) {
      throw databaseStartError(error);
    }
  });
}
