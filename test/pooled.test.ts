import { describe, expect, inject, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { withClient } from "../src/postgres/connection.ts";
import { migrate } from "../src/postgres/migrate.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { testSidecar } from "./support/sidecar.ts";

const counter = { scope: { kind: ScopeKind.ISSUE, id: "I" }, key: "count" };
const increment = { case: "increment" as const, value: {} };

/** Ends the server's side of the sidecars' connections; says how many were in the middle of something. */
async function endConnections(database: TestDatabase): Promise<number> {
  const ended = await database.query<{ active: boolean }>(
    `select state = 'active' as active, pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid() and usename <> current_user`,
  );
  return ended.filter(({ active }) => active).length;
}

describe.runIf(inject("isPooled"))("behind a pooler in transaction mode", () => {
  test("the database is migrated by many at once, and no lock is left behind", async () => {
    await using database = await testDatabase("template0");
    const url = new URL(database.url);
    url.username = new URL(database.ownerUrl).username;
    const connection = { connectionString: url.href };
    const ran = await Promise.all(
      Array.from({ length: 10 }, () => migrate(connection, "plugin_sidecar")),
    );
    expect(ran.filter((names) => names.length > 0)).toHaveLength(1);
    const locks = await database.query(
      `select from pg_locks l join pg_database d on d.oid = l.database
        where l.locktype = 'advisory' and d.datname = current_database()`,
    );
    expect(locks).toEqual([]);
    const left = await withClient(connection, async (client) => {
      const { rows } = await client.query(
        "select current_setting('lock_timeout') as lock_timeout, current_setting('search_path') as path",
      );
      return rows;
    });
    expect(left).toEqual([{ lock_timeout: "0", path: '"$user", public' }]);
  });

  test("sidecars with more connections than the pooler has for them all get their turn", async () => {
    await using database = await testDatabase();
    await using first = await testSidecar(database);
    await using second = await testSidecar(database, ["demo"], { coalescing: false });
    const increments = Array.from({ length: 60 }, (_, n) =>
      (n % 2 === 0 ? first : second).client.call("update", { ...counter, change: increment }),
    );
    await Promise.all(increments);
    const { entry } = await first.client.call("get", counter);
    expect(entry).toMatchObject({ valueJson: "60", revision: 60n });
  });

  test("sidecars that weren't told of it find out, and no call fails", async () => {
    await using database = await testDatabase();
    const untold = { database: { kind: "url" as const, url: database.url } };
    await using first = await testSidecar(database, ["demo"], untold);
    await using second = await testSidecar(database, ["demo"], { ...untold, coalescing: false });
    const increments = Array.from({ length: 60 }, (_, n) =>
      (n % 2 === 0 ? first : second).client.call("update", { ...counter, change: increment }),
    );
    await Promise.all(increments);
    const { entry } = await second.client.call("get", counter);
    expect(entry).toMatchObject({ valueJson: "60", revision: 60n });
  });

  test("writes whose server connections end under them are done once, or said not to be done", async () => {
    await using database = await testDatabase();
    await using sidecar = await testSidecar(database);
    let isOver = false;
    let done = 0;
    const writer = async () => {
      while (!isOver) {
        const call = sidecar.client.call("update", { ...counter, change: increment });
        const isDone = await call.then(
          () => true,
          // This says that nothing was written.
          (error) => (error.reason === "DATABASE_UNAVAILABLE" ? false : Promise.reject(error)),
        );
        done += isDone ? 1 : 0;
      }
    };
    const writers = Array.from({ length: 8 }, writer);
    let cut = 0;
    while (cut < 5) {
      const before = done;
      await expect.poll(() => done, { timeout: 20_000 }).toBeGreaterThan(before);
      cut += await endConnections(database);
    }
    isOver = true;
    await Promise.all(writers);
    const kept = await database.query("select value_json from plugin_sidecar.plugin_state");
    expect(kept).toEqual([{ value_json: done }]);
  });
});
