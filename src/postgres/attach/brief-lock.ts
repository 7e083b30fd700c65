import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { sqlState } from "../errors.ts";

/**
 * How long a lock on the host's table is waited for: everybody who comes later waits behind us meanwhile. Then they
 * pass, and we come again.
 */
const lockMs = 40;
const pauseMs = 150;
/** After this, and as often as it passes again, it is told that we wait. */
const tellMs = 3_000;

/** What a step on the host's table needs beside its connection. */
export interface Steps {
  readonly client: pg.Client;
  readonly signal: AbortSignal;
  /** Told what is being done, or waited for: a sentence for a person. */
  readonly onProgress: (message: string) => void;
}

const lockNotAvailable = "55P03";

/**
 * Runs statements in a transaction that takes locks on a host's table for milliseconds, and never waits for one for
 * longer than {@link lockMs}: it comes again until it gets them. All in one message: however far the database is, no
 * lock is held while something is on its way.
 *
 * @param table For the person who is told that it is in use.
 */
export async function briefly(
  { client, signal, onProgress }: Steps,
  table: string,
  statements: readonly string[],
): Promise<void> {
  const whole = [
    "begin isolation level read committed",
    `set local lock_timeout = ${lockMs}; set local statement_timeout = 0`,
    ...statements,
    "commit",
  ];
  let toldAt = performance.now();
  for (;;) {
    signal.throwIfAborted();
    try {
      await client.query(whole.join("; "));
      return;
    } catch (error) {
      await client.query("rollback").catch(() => undefined);
      if (sqlState(error) !== lockNotAvailable) throw error;
    }
    if (performance.now() - toldAt > tellMs) {
      toldAt = performance.now();
      onProgress(`waiting for transactions that use ${table} to end`);
    }
    await sleep(pauseMs * (0.5 + Math.random()), undefined, { signal });
  }
}
