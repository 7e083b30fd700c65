import pg from "pg";
import { type Connection, withClient } from "../connection.ts";
import { isConnectionLost } from "../errors.ts";
import { currentRole } from "../grants.ts";
import { minServerVersion } from "../migrate.ts";
import { addedColumnsCheck, indexes, triggerFaults, triggers } from "./attachment.ts";
import {
  type Check,
  type DoctorLimits,
  type Examination,
  type Finding,
  problem,
  rows,
} from "./check.ts";
import { counters, plugins } from "./counters.ts";
import { names } from "./names.ts";
import { isPooled, pooler } from "./pooler.ts";
import { say } from "./remedy.ts";
import { grants, leastPrivilege } from "./role.ts";
import { rowSecurity } from "./row-security.ts";
import { schema } from "./schema.ts";
import {
  collation,
  connections,
  durability,
  encoding,
  serverVersion,
  transactions,
  writable,
} from "./server.ts";
import { settings } from "./settings.ts";
import { findPlaces } from "./shape.ts";
import { duplicates, table } from "./table.ts";
import { vacuum } from "./vacuum.ts";
import { clock, connection, tls } from "./way.ts";

/** What can be said of any server, and whether it is one. */
export const firstChecks: readonly Check[] = [connection, tls, pooler, serverVersion, writable];

/** Those that need no table, in the order of what `doctor` prints. */
export const databaseChecks: readonly Check[] = [
  encoding,
  collation,
  settings,
  durability,
  connections,
  transactions,
  clock,
];

/** Those of plugin_state as its host made it: before the first migration too, for it may fail of them. */
export const tableChecks: readonly Check[] = [rowSecurity, duplicates, table, names];

/** Those that look into the schema: left out where there is none, or where it isn't this release's. */
export const schemaChecks: readonly Check[] = [
  grants,
  leastPrivilege,
  addedColumnsCheck,
  triggers,
  triggerFaults,
  indexes,
  counters,
  vacuum,
  plugins,
];

/** A check and what it found. */
export interface Result extends Finding {
  readonly name: string;
}

/** What to examine, and how strictly. */
export interface ExamineOptions {
  readonly stateSchema: string;
  /** Whose rights are judged; by default those of the connection's role. */
  readonly role?: string;
  readonly isEmbedded: boolean;
  /** What a command must be told to find the same database, quoted for a shell; by default nothing. */
  readonly databaseFlags?: readonly string[];
  readonly limits?: DoctorLimits;
}

/** Those of the command. */
export const defaultLimits: DoctorLimits = {
  minServerVersion,
  freeConnections: 6,
  clockSkewMs: 2_000,
  transactionSeconds: 600,
  deadRows: 10_000,
  bloatBytes: 64 * 1024 ** 2,
  frozenAge: 1_000_000_000,
  scanMs: 30_000,
};

/**
 * Runs the checks one after the other and changes nothing.
 *
 * @throws pg's error when the database can't be reached.
 */
export async function examine(connection: Connection, options: ExamineOptions): Promise<Result[]> {
  const startedAt = performance.now();
  return await withClient(connection, async (client) => {
    const examination: Examination = {
      client,
      connection,
      connectMs: performance.now() - startedAt,
      isPooled: await isPooled(client),
      stateSchema: options.stateSchema,
      role: options.role ?? (await currentRole(client)),
      ...(await whereabouts(client)),
      isEmbedded: options.isEmbedded,
      databaseFlags: options.databaseFlags ?? [],
      limits: options.limits ?? defaultLimits,
    };
    await requireRole(examination);
    return await examineAll(examination);
  });
}

async function examineAll(examination: Examination): Promise<Result[]> {
  const first = await runAll(firstChecks, examination);
  const isOld = first.some(
    ({ name, verdict }) => name === serverVersion.name && verdict === "problem",
  );
  if (isOld || examination.isStandby) {
    return first;
  }
  const results = [...first, ...(await runAll(databaseChecks, examination))];
  if ((await findPlaces(examination)).includes(examination.stateSchema)) {
    results.push(...(await runAll(tableChecks, examination)));
  }
  results.push(...(await runAll([schema], examination)));
  const isForeign = results.at(-1)?.kind === "configuration";
  return isForeign ? results : [...results, ...(await runAll(schemaChecks, examination))];
}

async function whereabouts(client: pg.Client): Promise<{ database: string; isStandby: boolean }> {
  const { rows: found } = await client.query<{ database: string; isStandby: boolean }>(
    `select current_database() as database, pg_is_in_recovery() as "isStandby"`,
  );
  const [first] = found;
  if (first === undefined) throw new Error("the database answered no rows");
  return first;
}

/** There is no role of the name that was given. */
export class NoSuchRole extends Error {}

async function requireRole(examination: Examination): Promise<void> {
  const found = await rows(examination, "select from pg_roles where rolname = $1", [
    examination.role,
  ]);
  if (found.length === 0) {
    throw new NoSuchRole(`there is no role ${examination.role}`);
  }
}

async function runAll(checks: readonly Check[], examination: Examination): Promise<Result[]> {
  const results: Result[] = [];
  for (const check of checks) {
    results.push({ name: check.name, ...(await runOne(check, examination)) });
  }
  return results;
}

async function runOne(check: Check, examination: Examination): Promise<Finding> {
  try {
    return await check.run(examination);
  } catch (error) {
    return failed(error);
  }
}

const insufficientPrivilege = "42501";

/** What kept a check from its answer. */
function failed(error: unknown): Finding {
  const said = error instanceof Error ? error.message : String(error);
  if (error instanceof pg.DatabaseError && error.code === insufficientPrivilege) {
    return problem(
      "permission",
      `this role may not look: ${said}`,
      say("See the check grants, or run doctor as the owner with --role."),
    );
  }
  return isConnectionLost(error)
    ? problem("unavailable", `the connection broke: ${said}`, say("Try again."))
    : problem("configuration", `the database refused: ${said}`, say("Look at the server's log."));
}
