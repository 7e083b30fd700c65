import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** What one version of `@paperclipai/db` exports, as far as it is used here. */
export interface HostPackage {
  createDb(url: string): HostDb;
  ensurePostgresDatabase(url: string, name: string): Promise<unknown>;
  applyPendingMigrations(url: string): Promise<void>;
  inspectMigrations(url: string): Promise<{ readonly status: string }>;
  runDatabaseBackup(options: {
    readonly connectionString: string;
    readonly backupDir: string;
    readonly backupEngine: Engine;
    readonly retention: { dailyDays: number; weeklyWeeks: number; monthlyMonths: number };
  }): Promise<{ readonly backupFile: string }>;
  runDatabaseRestore(options: {
    readonly connectionString: string;
    readonly backupFile: string;
  }): Promise<void>;
}

/** The host's two ways to write a backup. It takes the first where there is no `pg_dump`, or tables are left out. */
export type Engine = "javascript" | "pg_dump";

/** Its drizzle client. */
export interface HostDb {
  readonly $client: { end(options: { timeout: number }): Promise<void> };
  execute<Row>(sql: string): Promise<readonly Row[]>;
  transaction<T>(
    work: (transaction: HostDb) => Promise<T>,
    options?: { readonly isolationLevel?: Isolation },
  ): Promise<T>;
}

export type Isolation = "read committed" | "repeatable read" | "serializable";

/** How a plugin's worker names an entry. */
export interface HostPlace {
  readonly scopeKind: string;
  readonly scopeId?: string;
  readonly namespace?: string;
}

/** What the host's server does for `ctx.state`: `@paperclipai/server`'s own store. */
export interface HostStore {
  get(pluginId: string, scopeKind: string, key: string, place?: object): Promise<unknown>;
  set(
    pluginId: string,
    input: HostPlace & { readonly stateKey: string; readonly value: unknown },
  ): Promise<void>;
  delete(pluginId: string, scopeKind: string, key: string, place?: object): Promise<void>;
}

/** A host, as old or as new as those that scripts/ci/check-paperclip.sh installs. */
export interface Host {
  readonly name: "older" | "newer";
  /** Where its node_modules are. */
  readonly directory: string;
  readonly db: HostPackage;
  /** Of a client, or of a transaction. */
  storeOf(db: HostDb): HostStore;
}

/** Loads a host's packages from the directory that they were installed into. */
export async function loadHost(name: Host["name"]): Promise<Host> {
  const variable = `PLUGIN_STATE_TEST_PAPERCLIP_${name.toUpperCase()}`;
  const directory = process.env[variable];
  if (directory === undefined) throw new Error(`${variable} must name a directory`);
  const load = (path: string) =>
    import(pathToFileURL(join(directory, "node_modules/@paperclipai", path)).href);
  const db: HostPackage = await load("db/dist/index.js");
  const { pluginStateStore } = await load("server/dist/services/plugin-state-store.js");
  return { name, directory, db, storeOf: pluginStateStore };
}
