import pg from "pg";
import { expect, onTestFinished } from "vitest";
import type { TestDatabase } from "./database.ts";

/** Sent statements that wait for a lock, at most: a sidecar has no more connections than that. */
const mostWaiting = 3;

/** A write that the sidecar sends at once is seen to wait before this. */
const sentMs = 1_000;

/**
 * Holds what every write must lock first, as a writer does that is slow to commit. The first writes that
 * come meanwhile are sent and wait in the database; those after them wait in the sidecar.
 */
export async function holdWrites(database: TestDatabase) {
  const holder = new pg.Client(database.connection);
  holder.on("error", () => undefined);
  await holder.connect();
  onTestFinished(() => holder.end());
  // A plugin that nobody has used yet has no counter to be held.
  await holder.query(
    "select plugin_sidecar.settle_external_writes(id, true) from plugin_sidecar.plugins",
  );
  await holder.query("begin");
  await holder.query("select from plugin_sidecar.plugin_revisions for update");
  const waiting = async () => {
    const rows = await database.query(
      "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
    );
    return rows.length;
  };
  const areWaiting = (count: number, options = {}) => expect.poll(waiting, options).toBe(count);
  return {
    areWaiting: (count: number) => areWaiting(count),
    /** Makes writes until one waits in the sidecar, which shall gather the next ones with it. */
    fill: async <Reply>(write: () => Promise<Reply>): Promise<Promise<Reply>[]> => {
      const replies: Promise<Reply>[] = [];
      for (let count = 1; count <= mostWaiting; count++) {
        replies.push(write());
        const isSent = await areWaiting(count, { timeout: sentMs }).then(
          () => true,
          () => false,
        );
        if (!isSent) {
          break;
        }
      }
      return replies;
    },
    release: () => holder.query("commit"),
  };
}
