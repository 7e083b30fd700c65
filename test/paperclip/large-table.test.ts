import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import { expect, onTestFinished, test } from "vitest";
import { epochOf, expectCountsOfRows } from "./entries.ts";
import { HostDatabase } from "./host-database.ts";
import { AttachedSidecar, ended, problemsOf, start } from "./sidecar.ts";
import { Tally } from "./tally.ts";

const rows = Number(process.env["PLUGIN_STATE_TEST_PAPERCLIP_ROWS"] ?? 200_000);
const plugins = ["demo", "second", "third", "fourth"];
/** What a host may have to wait for a lock, by its own setting: PostgreSQL ends a statement that waits longer. */
const patienceMs = 100;
/** How often `migrate` is killed before it may end. */
const kills = 3;
/** Of a report that a host makes now and then, and between two of them. */
const reportMs = 1_500;
const pauseMs = 500;
const minutes = 60_000;

test(`attaching to ${rows} rows lets the host read and write all the time, and goes on where it was killed`, {
  timeout: 5 * minutes + rows / 5,
}, async () => {
  await using database = await HostDatabase.create();
  const pluginIds: string[] = [];
  for (const key of plugins) pluginIds.push(await database.addPlugin(key));
  await fill(database, pluginIds);
  const host = startHost(database, pluginIds);

  const killed = await killMigrations(database);
  const { code, stderr } = await ended(start(database, "migrate", []));

  const { failures, statements, longestMs } = await host.stop();
  process.stderr.write(
    `attached to ${rows} rows; ${killed} times killed; ${statements} statements of the host meanwhile, the longest ${longestMs.toFixed(0)} ms\n`,
  );
  expect(failures).toEqual([]);
  expect(code).toBe(0);
  expect(stderr.split("\n").length).toBeGreaterThan(1);
  expect(await problemsOf(database)).toEqual([]);
  await database.grantServing();
  await using sidecar = await AttachedSidecar.start(database, plugins);
  for (const [index, client] of [...sidecar.clients.values()].entries()) {
    await expectCountsOfRows(database, client, pluginIds[index]!);
    expect(await epochOf(database, pluginIds[index]!)).not.toBeNull();
  }
});

/** As a host's table grows: some plugins, many scopes, values of 200 to 300 bytes. */
async function fill(database: HostDatabase, pluginIds: readonly string[]): Promise<void> {
  await database.query(
    `insert into plugin_state (plugin_id, scope_kind, scope_id, state_key, value_json)
     select ($1::uuid[])[1 + n % ${plugins.length}], 'issue', 'issue-' || n % 500, 'key-' || n,
            jsonb_build_object('n', n, 'text', repeat(md5(n::text), 6 + n % 4))
       from generate_series(1, $2) n`,
    [pluginIds, rows],
  );
  await database.query("analyze plugin_state");
}

/** Kills `migrate` some times, each at another moment, unless it is quicker; says how often. */
async function killMigrations(database: HostDatabase): Promise<number> {
  let killed = 0;
  for (let round = 0; round < kills; round++) {
    const migrate: ChildProcess = start(database, "migrate", []);
    migrate.stdout?.resume();
    migrate.stderr?.resume();
    const exit = once(migrate, "exit");
    await Promise.race([exit, pause(Math.random() * (500 + rows / 200))]);
    if (migrate.exitCode === null) {
      migrate.kill("SIGKILL");
      killed++;
    }
    await exit;
  }
  return killed;
}

interface HostAtWork {
  stop(): Promise<{ failures: string[]; statements: number; longestMs: number }>;
}

/** Clients that select and upsert all the time, and don't wait for locks; beside them, long transactions. */
function startHost(database: HostDatabase, pluginIds: readonly string[]): HostAtWork {
  const failures = new Tally();
  let statements = 0;
  let longestMs = 0;
  let goesOn = true;
  onTestFinished(() => {
    goesOn = false;
  });
  const timed = async (client: pg.Client, text: string, values: unknown[]) => {
    const startedAt = performance.now();
    await client.query(text, values).catch((error) => failures.add(error));
    longestMs = Math.max(longestMs, performance.now() - startedAt);
    statements++;
  };
  const work = async (pluginId: string) => {
    const client = new pg.Client({
      connectionString: database.ownerUrl,
      options: `-c lock_timeout=${patienceMs}ms`,
    });
    await client.connect();
    for (let n = 0; goesOn; n++) {
      await timed(
        client,
        `select value_json from plugin_state where plugin_id = $1 and scope_kind = 'issue'
            and scope_id = $2 and namespace = 'default' and state_key = $3`,
        [pluginId, `issue-${n % 500}`, `key-${n % rows}`],
      );
      await timed(
        client,
        `insert into plugin_state (plugin_id, scope_kind, scope_id, state_key, value_json)
         values ($1, 'run', 'host', $2, '1')
         on conflict (plugin_id, scope_kind, scope_id, namespace, state_key)
         do update set value_json = excluded.value_json, updated_at = now()`,
        [pluginId, `key-${n % 1_000}`],
      );
    }
    await client.end();
  };
  // A long transaction, which nobody may queue behind with a lock that keeps the others out.
  const report = async () => {
    while (goesOn) {
      await database.session(async (client) => {
        await client.query("begin isolation level repeatable read");
        await client.query("select count(*) from (select from plugin_state limit 100) s");
        await pause(reportMs);
        await client.query("commit");
      });
      await pause(pauseMs);
    }
  };
  const running = [...pluginIds.map(work), report()];
  return {
    stop: async () => {
      goesOn = false;
      await Promise.all(running);
      return { failures: failures.list(), statements, longestMs };
    },
  };
}
