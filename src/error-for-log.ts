import { redactSecrets } from "./config/redact.ts";

/** An error as a log line has it. */
export interface LoggedError {
  readonly type: string;
  /** Its own text and those of its causes. */
  readonly message: string;
  readonly stack: string;
  readonly code?: unknown;
  readonly reason?: unknown;
}

/** Causes of causes that are logged. */
const maxCauses = 8;

/**
 * SQLSTATE classes whose texts are about the server, the schema or the connection. Those of others quote
 * values: `invalid input syntax for type bigint: "…"`.
 */
const safeClasses: ReadonlySet<string> = new Set([
  ...["08", "0A", "23", "25", "26", "28", "2B", "3D", "3F", "40", "42", "53", "54", "55", "57"],
  ...["58", "F0", "XX"],
]);
/** Where PostgreSQL says what a function raised, under whichever code: a trigger may quote what it likes. */
const raise = "exec_stmt_raise";
/** A migration's own `do` block, which knows no values and says what an operator has to mend. */
const migrationBlock = /^PL\/pgSQL function inline_code_block line \d+ at RAISE$/;
const withheld = "PostgreSQL's text isn't logged: it may quote a value";

/**
 * The message and stack of an error with its causes, and its code; nothing else it may carry. Passwords
 * are taken out, and so is what PostgreSQL says where that may quote a value.
 */
export function errorForLog(error: unknown): LoggedError | string {
  if (!(error instanceof Error)) return redactSecrets(String(error));
  const code = "code" in error ? error.code : undefined;
  const reason = "reason" in error ? error.reason : undefined;
  return {
    type: error.constructor.name,
    message: textForLog(error),
    stack: redactSecrets(chainOf(error).map(stackOf).join("\ncaused by: ")),
    ...(code === undefined ? {} : { code }),
    ...(reason === undefined ? {} : { reason }),
  };
}

/** What an error and its causes say, as it may be logged. */
export function textForLog(error: Error): string {
  const said: string[] = [];
  for (const message of chainOf(error).map(messageOf)) {
    // An error that was wrapped often says what its cause says.
    if (!said.some((earlier) => earlier.includes(message))) said.push(message);
  }
  return redactSecrets(said.filter(Boolean).join(": "));
}

function chainOf(error: Error): readonly Error[] {
  const chain = [error];
  for (let { cause } = error; cause instanceof Error && chain.length <= maxCauses; ) {
    chain.push(cause);
    ({ cause } = cause);
  }
  return chain;
}

function messageOf(error: Error): string {
  if (mayQuoteValues(error)) return withheld;
  // Node joins failed connection attempts in an AggregateError with an empty message.
  const parts = error instanceof AggregateError ? error.errors.map(String) : [];
  return [error.message, ...parts].filter(Boolean).join("; ");
}

function stackOf(error: Error): string {
  const { stack = "", message } = error;
  return mayQuoteValues(error) ? stack.replace(message, () => withheld) : stack;
}

/** Whether it is an error of PostgreSQL's, which has a severity and a routine, whose text isn't safe. */
function mayQuoteValues(error: Error): boolean {
  if (!("severity" in error && "routine" in error)) return false;
  const { code, routine, where } = error as { code?: unknown; routine?: unknown; where?: unknown };
  if (migrationBlock.test(String(where))) return false;
  return routine === raise || !safeClasses.has(String(code).slice(0, 2));
}
