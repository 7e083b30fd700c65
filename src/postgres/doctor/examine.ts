import pg from "pg";
import { type Connection, withClient } from "../connection.ts";
import { isConnectionLost } from "../errors.ts";
import { currentRole } from "../grants.ts";
import {
  type Check,
  type DoctorLimits,
  type Examination,
  type Finding,
  problem,
  rows,
} from "./check.ts";
import { indexes } from "./indexes.ts";
import { pooler } from "./pooler.ts";
import { grants, leastPrivilege } from "./role.ts";
import { duplicates, plugins, schema, table, triggers } from "./schema.ts";
import {
  collation,
  connections,
  durability,
  encoding,
  serverVersion,
  transactions,
  writable,
} from "./server.ts";
import { vacuum } from "./vacuum.ts";
import { clock, connection, tls } from "./way.ts";

/** Every check that needs no schema, in the order of what `doctor` prints. */
export const databaseChecks: readonly Check[] = [
  connection,
  tls,
  pooler,
  serverVersion,
  encoding,
  collation,
  writable,
  durability,
  connections,
  transactions,
  clock,
  schema,
];

/** Those that look into the schema: left out where there is none, or where it isn't this release's. */
export const schemaChecks: readonly Check[] = [
  grants,
  leastPrivilege,
  table,
  duplicates,
  triggers,
  indexes,
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
  readonly limits?: DoctorLimits;
}

const defaultLimits: DoctorLimits = {
  freeConnections: 6,
  clockSkewMs: 2_000,
  transactionSeconds: 600,
  deadRows: 10_000,
  frozenAge: 1_000_000_000,
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
      stateSchema: options.stateSchema,
      role: options.role ?? (await currentRole(client)),
      isEmbedded: options.isEmbedded,
      limits: options.limits ?? defaultLimits,
    };
    await requireRole(examination);
    const results = await runAll(databaseChecks, examination);
    const isForeign = results.some(
      ({ name, kind }) => name === schema.name && kind === "configuration",
    );
    return isForeign ? results : [...results, ...(await runAll(schemaChecks, examination))];
  });
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
      "See the check grants, or run doctor as the owner with --role.",
    );
  }
  return isConnectionLost(error)
    ? problem("unavailable", `the connection broke: ${said}`, "Try again.")
    : problem("configuration", `the database refused: ${said}`, "Look at the server's log.");
}
