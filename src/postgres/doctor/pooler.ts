import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { withClient } from "../connection.ts";
import { isNameLost } from "../errors.ts";
import { processIdOf } from "../open-session.ts";
import { type Check, type Examination, type Finding, ok, problem } from "./check.ts";
import { say } from "./remedy.ts";

/** How long a pooler with one server connection keeps the second question waiting. */
const patienceMs = 500;

/** What the way to the server keeps between two transactions. */
interface Pooling {
  /** Whether two clients can get the same server connection, one after the other. */
  readonly isShared: boolean;
  /** Whether a statement that was named is found again. */
  readonly keepsNames: boolean;
}

/** Whether a pooler is in between, and whether named statements survive in it. */
export const pooler: Check = {
  name: "pooler",
  run: async (examination) => {
    return examination.isPooled
      ? describe(await tryOut(examination), examination)
      : ok("none: connections go to the server itself");
  },
};

function describe(pooling: Pooling, { connection }: Examination): Finding {
  const { isShared, keepsNames } = pooling;
  const mode = isShared
    ? "there is one, which shares server connections between transactions"
    : "there is one, which seems to give each client a server connection of its own";
  if (keepsNames) {
    return ok(`${mode}; named statements survive`);
  }
  if (connection.namedStatements === false) {
    return ok(`${mode}; statements are sent without names`);
  }
  return problem(
    "configuration",
    `${mode}, and loses named statements`,
    say(
      "Start the sidecar with --no-prepared-statements, or PLUGIN_STATE_NO_PREPARED_STATEMENTS=1 in its environment; or let the pooler keep them (PgBouncer 1.21 and later: max_prepared_statements).",
    ),
  );
}

/**
 * Names a statement on one client, makes another one hold the server connection it was named on, and
 * uses the name again; then names it on the other client too, which fails where both share a server
 * connection that doesn't tell their names apart.
 */
async function tryOut({ client, connection }: Examination): Promise<Pooling> {
  const name = `plugin_state_doctor_${randomBytes(6).toString("hex")}`;
  const first = await named(client, name);
  return await withClient(connection, async (other) => {
    await other.query("begin");
    const others = await backendOf(other);
    const again = named(client, name);
    await Promise.race([again, sleep(patienceMs)]);
    await other.query("commit");
    const second = await again;
    const third = await named(other, name);
    const answers = [first, second, third];
    const isLost = answers.some((answer) => answer === "lost");
    const isShared = isLost || others === first || second !== first || third === first;
    return { isShared, keepsNames: !isLost };
  });
}

/** The server process that ran a named statement. */
async function named(client: pg.Client, name: string): Promise<number | "lost"> {
  try {
    const text = "select pg_backend_pid() as pid";
    return (await client.query<{ pid: number }>({ name, text })).rows[0]?.pid ?? 0;
  } catch (error) {
    if (isNameLost(error)) {
      return "lost";
    }
    throw error;
  }
}

/** Whether a pooler is in between: it makes up the process id by which a client may cancel. */
export async function isPooled(client: pg.Client): Promise<boolean> {
  return processIdOf(client) !== (await backendOf(client));
}

async function backendOf(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
  return rows[0]?.pid ?? 0;
}
