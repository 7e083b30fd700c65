import { readdirSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import type pg from "pg";
import { type Connection, withClient } from "./connection.ts";

/** The schema that holds the sidecar's own tables and functions and, by default, the state too. */
export const ownSchema = "plugin_sidecar";

const migrationsTable = "migrations";
const directory = fileURLToPath(new URL("../../migrations", import.meta.url));

/**
 * The advisory lock that lets one sidecar migrate at a time. Not node-pg-migrate's default, which a
 * host that uses the same library on the same database would hold too.
 */
export const migrationLock = 7_063_819_051_152_021;
/** How long a migration waits for a table lock before it gives up and lets the table's users pass. */
const lockTimeoutMs = 10_000;
/** The first PostgreSQL with UNIQUE NULLS NOT DISTINCT. */
export const minServerVersion = 150_000;

/** The database isn't one this release can serve; starting again won't help. */
export class SchemaError extends Error {
  override readonly name = "SchemaError";
  /** Stable and made for programs. */
  readonly reason:
    | "POSTGRES_TOO_OLD"
    | "SCHEMA_TOO_OLD"
    | "SCHEMA_TOO_NEW"
    | "STATE_SCHEMA_DIFFERS"
    | "STATE_SCHEMA_UNUSABLE";
  /** What a person can do about it. */
  readonly hint: string;

  constructor(
    reason: SchemaError["reason"],
    message: string,
    hint: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.reason = reason;
    this.hint = hint;
  }
}

/**
 * Brings the schema up to date and returns the names of the migrations it ran. Any number of
 * sidecars may do it at once: one does the work, the others wait for it.
 *
 * @throws {SchemaError} when the database can't be served even then.
 */
export async function migrate(
  connection: Connection,
  stateSchema: string,
  signal?: AbortSignal,
): Promise<string[]> {
  const work = async (client: pg.Client) => {
    await requireServerVersion(client);
    const isComplete = (await missingMigrations(client)).length === 0;
    const ran = isComplete ? [] : await migrateInTurn(client, stateSchema);
    await requireStateSchema(client, stateSchema);
    return ran;
  };
  return await withClient(connection, work, signal);
}

/**
 * Checks that the schema is the one this release needs, and changes nothing.
 *
 * @throws {SchemaError} when it isn't.
 */
export async function checkSchema(
  connection: Connection,
  stateSchema: string,
  signal?: AbortSignal,
): Promise<void> {
  const work = async (client: pg.Client) => {
    await requireServerVersion(client);
    const missing = await missingMigrations(client);
    if (missing.length > 0) {
      const list = missing.join(", ");
      throw new SchemaError(
        "SCHEMA_TOO_OLD",
        `the database lacks migrations of this release: ${list}`,
        "Run `plugin-state migrate`, or start without --no-migrate.",
      );
    }
    await requireStateSchema(client, stateSchema);
  };
  await withClient(connection, work, signal);
}

async function requireServerVersion(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ number: number; name: string }>(
    "select current_setting('server_version_num')::int as number, current_setting('server_version') as name",
  );
  const { number, name } = only(rows);
  if (number < minServerVersion) {
    throw new SchemaError(
      "POSTGRES_TOO_OLD",
      `the database is PostgreSQL ${name}`,
      "Use PostgreSQL 15 or later.",
    );
  }
}

/**
 * The migrations of this release that haven't run. Cheap: most starts find none.
 *
 * @throws {SchemaError} when a newer release has migrated.
 */
export async function missingMigrations(client: pg.Client): Promise<string[]> {
  const known = migrationNames();
  const run = await migrationsRun(client);
  const unknown = run.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    throw new SchemaError(
      "SCHEMA_TOO_NEW",
      `a newer release has migrated this database: ${unknown.join(", ")}`,
      "Use that release, or a later one.",
    );
  }
  return known.filter((name) => !run.includes(name));
}

async function migrationsRun(client: pg.Client): Promise<string[]> {
  const exists = await client.query<{ found: boolean }>(
    "select to_regclass($1) is not null as found",
    [`${ownSchema}.${migrationsTable}`],
  );
  if (!only(exists.rows).found) {
    return [];
  }
  const { rows } = await client.query<{ name: string }>(
    `select name from ${ownSchema}.${migrationsTable} order by id`,
  );
  return rows.map((row) => row.name);
}

function migrationNames(): string[] {
  return readdirSync(directory)
    .filter((file) => file.endsWith(".sql"))
    .map((file) => basename(file, ".sql"))
    .sort();
}

/**
 * Waits for its turn and runs what is missing, all in one transaction: lock and settings end with it,
 * also behind a pooler that gives each transaction another of its connections.
 */
async function migrateInTurn(client: pg.Client, stateSchema: string): Promise<string[]> {
  await client.query("begin");
  try {
    await client.query("select pg_advisory_xact_lock($1)", [migrationLock]);
    await client.query(
      `set local lock_timeout = ${lockTimeoutMs}; set local search_path = pg_catalog, pg_temp`,
    );
    const ran = await runMigrations(client, stateSchema);
    // The runner has committed, unless another sidecar had left nothing to run.
    await client.query("commit");
    return ran;
  } catch (error) {
    await client.query("rollback").catch(ignore);
    throw error;
  }
}

async function runMigrations(client: pg.Client, stateSchema: string): Promise<string[]> {
  // Loaded when needed: it takes longer than all the rest of a start.
  const { runner } = await import("node-pg-migrate");
  try {
    const ran = await runner({
      dbClient: client,
      dir: directory,
      ignorePattern: ".*\\.md",
      direction: "up",
      migrationsTable,
      migrationsSchema: ownSchema,
      createMigrationsSchema: true,
      noLock: true,
      singleTransaction: true,
      logger: { debug: ignore, info: ignore, warn: ignore, error: ignore },
      migrationLoaderStrategies: [
        {
          extensions: [".sql"],
          loader: async (files) => files.map((file) => migrationUnit(file, stateSchema)),
        },
      ],
    });
    return ran.map((migration) => migration.name);
  } catch (error) {
    throw refusedByMigration(error) ?? error;
  }
}

/** A migration file as node-pg-migrate runs it, with `state_schema` replaced by the schema's quoted name. */
function migrationUnit(file: string, stateSchema: string) {
  const text = readFileSync(file, "utf8").replaceAll(/\bstate_schema\b/g, `"${stateSchema}"`);
  const [, up = "", down = ""] = text.split(/^-- (?:Up|Down) Migration$/m);
  return {
    id: file,
    filePaths: [file],
    actions: {
      up: (migration: { sql(text: string): void }) => migration.sql(up),
      down: (migration: { sql(text: string): void }) => migration.sql(down),
    },
  };
}

/** What a migration itself refused (see 0001), in PostgreSQL's words: they are ours. */
function refusedByMigration(error: unknown): SchemaError | undefined {
  const { code, message, hint } = error as { code?: string; message?: string; hint?: string };
  const isOurs = code === "42P01" || code === "55000";
  return isOurs && hint !== undefined && message !== undefined
    ? new SchemaError("STATE_SCHEMA_UNUSABLE", message, hint, { cause: error })
    : undefined;
}

/** Which schema the state of a migrated database is in. */
export async function installedStateSchema(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ schema_of_state: string }>(
    `select schema_of_state from ${ownSchema}.installation`,
  );
  return only(rows).schema_of_state;
}

async function requireStateSchema(client: pg.Client, stateSchema: string): Promise<void> {
  const installed = await installedStateSchema(client);
  if (installed !== stateSchema) {
    throw new SchemaError(
      "STATE_SCHEMA_DIFFERS",
      `this database was set up with the state in schema ${installed}, not ${stateSchema}`,
      `Start with --state-schema ${installed}.`,
    );
  }
  await requireTableShape(client, stateSchema);
}

/**
 * What a restore from the host's own dump takes away: the constraint's NULLS NOT DISTINCT, without
 * which a write to the instance scope may add a row beside the old one, and triggers.
 */
async function requireTableShape(client: pg.Client, stateSchema: string): Promise<void> {
  const { rows } = await client.query<{ constraint_holds: boolean; triggers: number }>(
    `select exists (
              select from pg_constraint c join pg_index i on i.indexrelid = c.conindid
               where c.conrelid = $1::regclass and c.conname = 'plugin_state_unique_entry_idx'
                 and i.indnullsnotdistinct) as constraint_holds,
            (select count(*)::int from pg_trigger t
              where t.tgrelid = $1::regclass and t.tgenabled = 'O'
                and t.tgname in ('plugin_sidecar_count_foreign_write',
                                 'plugin_sidecar_number_foreign_write')) as triggers`,
    [`"${stateSchema}".plugin_state`],
  );
  const { constraint_holds: constraintHolds, triggers } = only(rows);
  if (!constraintHolds) {
    throw new SchemaError(
      "STATE_SCHEMA_UNUSABLE",
      `constraint plugin_state_unique_entry_idx of ${stateSchema}.plugin_state lacks NULLS NOT DISTINCT`,
      "Remove duplicate rows of the instance scope, then drop the constraint and add it as unique nulls not distinct (plugin_id, scope_kind, scope_id, namespace, state_key).",
    );
  }
  if (triggers !== 2) {
    throw new SchemaError(
      "STATE_SCHEMA_UNUSABLE",
      `${stateSchema}.plugin_state lacks the sidecar's triggers, or they are disabled`,
      "Enable them or restore them from migrations/0002: without them, other programs' writes get no revision.",
    );
  }
}

function only<T>(rows: readonly T[]): T {
  const [row] = rows;
  if (row === undefined) {
    throw new Error("the database answered no rows");
  }
  return row;
}

function ignore(): void {}
