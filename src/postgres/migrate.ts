import { readdirSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type pg from "pg";
import { attach, isAttached } from "./attach/attach.ts";
import { shapeOf } from "./attach/shape.ts";
import { type Connection, withClient } from "./connection.ts";
import { ownSchema } from "./own-schema.ts";

const migrationsTable = "migrations";
const directory = fileURLToPath(new URL("../../migrations", import.meta.url));

/**
 * The advisory lock that lets one sidecar migrate at a time. Not node-pg-migrate's default, which a
 * host that uses the same library on the same database would hold too.
 */
export const migrationLock = 7_063_819_051_152_021;
/** How long a migration waits for a table lock before it gives up and lets the table's users pass. */
const lockTimeoutMs = 10_000;
/** How often a sidecar asks whether it is its turn to migrate, give or take a half at random. */
const turnMs = 100;
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

/** How to migrate. */
export interface MigrateOptions {
  /** Ends every wait, also for a lock in the database. */
  readonly signal?: AbortSignal;
  /** Told what takes its time: a sentence for a person. */
  readonly onProgress?: (message: string) => void;
  /** Counts all entries again, and begins a new epoch, also if nothing is missing. */
  readonly attachAnew?: boolean;
}

/**
 * Brings the sidecar's own schema up to date, attaches to the tables of the state, and returns the names of the
 * migrations it ran. Any number of sidecars may do it at once: one does the work, the others wait for it.
 *
 * @throws {SchemaError} when the database can't be served even then.
 */
export async function migrate(
  connection: Connection,
  stateSchema: string,
  { signal = never(), onProgress = ignore, attachAnew: anew = false }: MigrateOptions = {},
): Promise<string[]> {
  return await withClient(
    connection,
    async (client) => {
      await requireServerVersion(client);
      const isComplete = (await missingMigrations(client)).length === 0;
      if (isComplete && !anew && (await isServable(client, stateSchema))) {
        return [];
      }
      const ran = await inTurn(client, signal, () => runMigrations(client, stateSchema));
      await requireStateSchema(client, stateSchema);
      await requireConstraint(client, stateSchema);
      await inTurn(client, signal, () =>
        attach(connection, { stateSchema, signal, onProgress, anew }),
      );
      await requireAttachment(client);
      return ran;
    },
    signal,
  );
}

/** Aborts nothing. One each: a signal that many listen to is taken for a leak. */
function never(): AbortSignal {
  return new AbortController().signal;
}

/**
 * Checks that the schema is the one this release needs, and that the role of this connection sees all that is
 * written; and changes nothing.
 *
 * @throws {SchemaError} when it isn't.
 */
export async function checkSchema(
  connection: Connection,
  stateSchema: string,
  signal: AbortSignal = never(),
): Promise<void> {
  const check = async (client: pg.Client) => {
    await requireServerVersion(client);
    const missing = await missingMigrations(client);
    if (missing.length > 0) {
      const list = missing.join(", ");
      throw new SchemaError(
        "SCHEMA_TOO_OLD",
        `the database lacks migrations of this release: ${list}`,
        `Run \`${migrateCommand(stateSchema)}\`, or start without --no-migrate.`,
      );
    }
    await requireStateSchema(client, stateSchema);
    await requireAttachment(client);
  };
  await withClient(connection, check, signal);
}

/** The command that migrates, as a person would type it. */
export function migrateCommand(stateSchema: string): string {
  return stateSchema === ownSchema
    ? "plugin-state migrate"
    : `plugin-state migrate --state-schema ${stateSchema}`;
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
 * Waits for its turn and works, while a transaction of this client's holds the lock: so it ends with the connection,
 * also behind a pooler that gives each transaction another of its connections.
 *
 * Asks for the lock again and again instead of waiting for it in the database: who waits there has a snapshot, whose
 * end a concurrent index build waits for.
 */
async function inTurn<T>(
  client: pg.Client,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  for (;;) {
    await client.query("begin isolation level read committed");
    try {
      await client.query(
        `set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0;
         set local lock_timeout = ${lockTimeoutMs}; set local search_path = pg_catalog, pg_temp;
         set local check_function_bodies = off; set local standard_conforming_strings = on`,
      );
      // Without a parameter: a statement that has one leaves a portal behind, which has a snapshot too.
      const { rows } = await client.query<{ mine: boolean }>(
        `select pg_try_advisory_xact_lock(${migrationLock}) as mine`,
      );
      if (only(rows).mine) {
        const result = await work();
        // A migration has committed, unless another sidecar had left nothing to run.
        await client.query("commit");
        return result;
      }
      await client.query("rollback");
    } catch (error) {
      await client.query("rollback").catch(ignore);
      throw error;
    }
    await sleep(turnMs * (0.5 + Math.random()), undefined, { signal });
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
}

/** Whether a migrated database can be served as it is. */
async function isServable(client: pg.Client, stateSchema: string): Promise<boolean> {
  await requireStateSchema(client, stateSchema);
  return (
    (await attachmentProblem(client)) === null &&
    isAttached(await shapeOf(client, `"${stateSchema}".plugin_state`))
  );
}

/**
 * What a restore from the host's own dump takes away: the constraint's NULLS NOT DISTINCT, without which a write to
 * the instance scope may add a row beside the old one. A person has to say which of them stays.
 */
async function requireConstraint(client: pg.Client, stateSchema: string): Promise<void> {
  const { rows } = await client.query<{ holds: boolean }>(
    `select exists (
              select from pg_index i join pg_class c on c.oid = i.indexrelid
               where i.indrelid = to_regclass($1) and c.relname = 'plugin_state_unique_entry_idx'
                 and i.indisunique and i.indnullsnotdistinct) as holds`,
    [`"${stateSchema}".plugin_state`],
  );
  if (!only(rows).holds) {
    throw new SchemaError(
      "STATE_SCHEMA_UNUSABLE",
      `constraint plugin_state_unique_entry_idx of ${stateSchema}.plugin_state lacks NULLS NOT DISTINCT`,
      "Remove duplicate rows of the instance scope, then drop the constraint and add it as unique nulls not distinct (plugin_id, scope_kind, scope_id, namespace, state_key).",
    );
  }
}

async function attachmentProblem(client: pg.Client): Promise<string | null> {
  const { rows } = await client.query<{ problem: string | null }>(
    `select ${ownSchema}.attachment_problem() as problem`,
  );
  return only(rows).problem;
}

async function requireAttachment(client: pg.Client): Promise<void> {
  const problem = await attachmentProblem(client);
  if (problem !== null) {
    const schema = await installedStateSchema(client);
    throw new SchemaError(
      "STATE_SCHEMA_UNUSABLE",
      problem,
      `\`plugin-state doctor\` says more; \`${migrateCommand(schema)}\` attaches anew.`,
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
