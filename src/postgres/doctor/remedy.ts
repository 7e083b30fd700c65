import pg from "pg";
import { defaultStateSchema } from "../../config/limits.ts";
import type { Examination } from "./check.ts";

/** A step of what to do: sentences to read, a command for a shell, or a statement for the database. */
export type Step = { readonly say: string } | { readonly run: string } | { readonly sql: string };

/** What to do, in order. Commands and statements are complete, to be run as they are. */
export type Remedy = readonly Step[];

/** Sentences to read. */
export function say(text: string): Step {
  return { say: text };
}

/** A statement to run as the owner of what it names, outside of a transaction. */
export function sql(statement: string): Step {
  return { sql: statement };
}

/** A command that works on the database that was examined. */
export function command(
  { stateSchema, databaseFlags }: Pick<Examination, "stateSchema" | "databaseFlags">,
  ...words: readonly string[]
): Step {
  const schema = stateSchema === defaultStateSchema ? [] : ["--state-schema", stateSchema];
  return { run: ["plugin-state", ...words, ...schema, ...databaseFlags].join(" ") };
}

/** A name as SQL has it. */
export function quote(name: string): string {
  return pg.escapeIdentifier(name);
}

/** A word as a shell takes it for one. */
export function shellQuote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
