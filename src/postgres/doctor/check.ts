import type pg from "pg";
import type { Connection } from "../connection.ts";
import { sqlState } from "../errors.ts";
import type { Remedy } from "./remedy.ts";

/** How a check came out. A warning leaves the sidecar able to serve and to keep its promises. */
export type Verdict = "ok" | "warning" | "problem";

/** Who can mend a problem: nobody, it may pass; who grants rights; who configures. */
export type ProblemKind = "unavailable" | "permission" | "configuration";

/** What a check found, and what to do about it. */
export interface Finding {
  readonly verdict: Verdict;
  /** A sentence without its full stop. Holds no secret and no value of a plugin's. */
  readonly message: string;
  /** Of a warning or a problem. */
  readonly remedy?: Remedy;
  readonly kind?: ProblemKind;
}

/** From where on a number is worth a warning. */
export interface DoctorLimits {
  readonly minServerVersion: number;
  /** Fewer connections than these should stay free. */
  readonly freeConnections: number;
  readonly clockSkewMs: number;
  readonly transactionSeconds: number;
  /** Dead rows of a table, if they are also more than the live ones. */
  readonly deadRows: number;
  /** A table smaller than this isn't bloated. */
  readonly bloatBytes: number;
  readonly frozenAge: number;
  /** How long one look at all rows may take. */
  readonly scanMs: number;
}

/** What a check looks at. */
export interface Examination {
  /** An open connection, which no check leaves changed. */
  readonly client: pg.Client;
  /** How to open another. */
  readonly connection: Connection;
  readonly connectMs: number;
  /** Whether a pooler is in between. */
  readonly isPooled: boolean;
  readonly isStandby: boolean;
  readonly stateSchema: string;
  /** Whose rights are judged; there is such a role. */
  readonly role: string;
  readonly database: string;
  /** True when the database is the sidecar's own, with one role for everything. */
  readonly isEmbedded: boolean;
  /** What a command must be told to find the same database, quoted for a shell. */
  readonly databaseFlags: readonly string[];
  readonly limits: DoctorLimits;
}

/** One line of what `doctor` says. */
export interface Check {
  /** Stable: programs look for it. */
  readonly name: string;
  /** Looks, changes nothing, and judges. What it throws is a problem too. */
  run(examination: Examination): Promise<Finding>;
}

/** All is well. */
export function ok(message: string): Finding {
  return { verdict: "ok", message };
}

/** It works, but something should be looked at. */
export function warning(message: string, ...remedy: Remedy): Finding {
  return { verdict: "warning", message, remedy };
}

/** The sidecar can't serve, or can't keep a promise. */
export function problem(kind: ProblemKind, message: string, ...remedy: Remedy): Finding {
  return { verdict: "problem", message, remedy, kind };
}

/** The rows of a statement. */
export async function rows<Row extends pg.QueryResultRow>(
  { client }: Examination,
  text: string,
  values: readonly unknown[] = [],
): Promise<Row[]> {
  return (await client.query<Row>(text, [...values])).rows;
}

/** The one row of a statement. */
export async function row<Row extends pg.QueryResultRow>(
  examination: Examination,
  text: string,
  values: readonly unknown[] = [],
): Promise<Row> {
  const [first] = await rows<Row>(examination, text, values);
  if (first === undefined) {
    throw new Error("the database answered no rows");
  }
  return first;
}

const queryCanceled = "57014";

/** The rows of a statement that looks at every entry, or undefined if it takes longer than it may. */
export async function scan<Row extends pg.QueryResultRow>(
  examination: Examination,
  text: string,
): Promise<Row[] | undefined> {
  const { client, limits } = examination;
  await client.query("begin read only");
  try {
    await client.query(`set local statement_timeout = ${limits.scanMs}`);
    return (await client.query<Row>(text)).rows;
  } catch (error) {
    if (sqlState(error) === queryCanceled) {
      return undefined;
    }
    throw error;
  } finally {
    await client.query("rollback");
  }
}
