import type pg from "pg";
import type { Connection } from "../connection.ts";

/** How a check came out. A warning leaves the sidecar able to serve and to keep its promises. */
export type Verdict = "ok" | "warning" | "problem";

/** Who can mend a problem: nobody, it may pass; who grants rights; who configures. */
export type ProblemKind = "unavailable" | "permission" | "configuration";

/** What a check found, and what to do about it. */
export interface Finding {
  readonly verdict: Verdict;
  /** A sentence without its full stop. Holds no secret and no value of a plugin's. */
  readonly message: string;
  /** Sentences, or SQL to run; of a warning or a problem. */
  readonly remedy?: string;
  readonly kind?: ProblemKind;
}

/** From where on a number is worth a warning. */
export interface DoctorLimits {
  /** Fewer connections than these should stay free. */
  readonly freeConnections: number;
  readonly clockSkewMs: number;
  readonly transactionSeconds: number;
  /** Dead rows of a table, if they are also more than the live ones. */
  readonly deadRows: number;
  readonly frozenAge: number;
}

/** What a check looks at. */
export interface Examination {
  /** An open connection, which no check leaves changed. */
  readonly client: pg.Client;
  /** How to open another. */
  readonly connection: Connection;
  readonly connectMs: number;
  readonly stateSchema: string;
  /** Whose rights are judged; there is such a role. */
  readonly role: string;
  /** True when the database is the sidecar's own, with one role for everything. */
  readonly isEmbedded: boolean;
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
export function warning(message: string, remedy: string): Finding {
  return { verdict: "warning", message, remedy };
}

/** The sidecar can't serve, or can't keep a promise. */
export function problem(kind: ProblemKind, message: string, remedy: string): Finding {
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
