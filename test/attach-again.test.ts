import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { createLog } from "../src/log.ts";
import { startSidecar } from "../src/server.ts";
import { Running, run } from "./command/run-command.ts";
import { failure, TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { hostTables } from "./support/host-tables.ts";
import { configFor } from "./support/sidecar.ts";

const mainScript = fileURLToPath(new URL("../dist/main.js", import.meta.url));
const instance = { kind: ScopeKind.INSTANCE };

/** Runs `work` as a client of a sidecar that attaches to the host's tables as the owner of everything. */
async function attached<T>(
  database: TestDatabase,
  work: (client: TestClient) => Promise<T>,
): Promise<T> {
  const config = { ...configFor(database.ownerUrl, ["demo"]), stateSchema: "public" };
  const sidecar = await startSidecar(config, createLog("silent"), new AbortController().signal);
  using client = new TestClient(sidecar.bindings[0]!.address);
  try {
    return await work(client);
  } finally {
    await sidecar.stop();
  }
}

test("when the sidecar's schema was dropped, revisions go on above those of the host's rows, and no condition of before holds", async () => {
  await using database = await testDatabase("template0");
  await database.query(hostTables);
  const before = await attached(database, async (client) => {
    await client.call("set", { scope: instance, key: "a", valueJson: "1" });
    return [
      await client.call("set", { scope: instance, key: "b", valueJson: "1" }),
      await client.call("set", { scope: instance, key: "a", valueJson: "2" }),
    ].map(({ revision }) => revision);
  });
  expect(before).toEqual([2n, 3n]);

  await database.query("drop schema plugin_sidecar cascade");

  await attached(database, async (client) => {
    for (const [key, revision] of [
      ["b", 2n],
      ["a", 3n],
    ] as const) {
      const { entry } = await client.call("get", { scope: instance, key });
      expect(entry).toMatchObject({ revision: 4n });
      const condition = { case: "ifRevision" as const, value: revision };
      const write = { scope: instance, key, valueJson: "3", condition };
      expect(await failure(client.call("set", write))).toMatchObject({
        codeName: "ABORTED",
        reason: "REVISION_MISMATCH",
        metadata: { current: "4" },
      });
    }
    const { revision } = await client.call("set", { scope: instance, key: "c", valueJson: "1" });
    expect(revision).toBe(5n);
  });
});

test("a plugin of whose entries none ever had a revision begins at 0", async () => {
  await using database = await testDatabase("template0");
  await database.query(
    `${hostTables};
     insert into plugin_state (plugin_id, scope_kind, state_key, value_json) select id, 'instance', 'k', '1' from plugins`,
  );
  await attached(database, async (client) => {
    const { entry } = await client.call("get", { scope: instance, key: "k" });
    expect(entry).toMatchObject({ revision: 0n });
    const { revision } = await client.call("set", { scope: instance, key: "k", valueJson: "2" });
    expect(revision).toBe(1n);
  });
});

test("`plugin-state migrate --attach-anew` counts what drifted and begins a new epoch, and says so on stderr", async () => {
  await using database = await testDatabase();
  const id = await database.addPlugin("demo");
  await database.query(
    "insert into plugin_sidecar.plugin_state (plugin_id, scope_kind, state_key, value_json) values ($1, 'instance', 'k', '1')",
    [id],
  );
  await database.query("select plugin_sidecar.settle_external_writes($1, true)", [id]);
  const counter = async () =>
    (
      await database.query<{ entries: string; epoch: string }>(
        "select entries, epoch from plugin_sidecar.plugin_revisions",
      )
    )[0];
  await database.query("update plugin_sidecar.plugin_revisions set entries = 7");
  const drifted = await counter();

  const owner = { DATABASE_URL: database.ownerUrl };
  expect(await run(["migrate"], owner)).toMatchObject({ code: 0, stderr: "" });
  expect(await counter()).toEqual(drifted);

  expect(await run(["migrate", "--attach-anew"], owner)).toEqual({
    code: 0,
    stdout: "the schema is up to date\n",
    stderr: expect.stringMatching(
      /^adding triggers to .*\n(.*\n)*counted the entries of plugin \S+, 1 done\n$/,
    ),
  });
  const counted = await counter();
  expect(counted).toMatchObject({ entries: "1" });
  expect(counted?.epoch).not.toBe(drifted?.epoch);
});

test("a sidecar that attaches at its start logs what takes its time", async () => {
  await using database = await testDatabase("template0");
  await database.query(hostTables);
  const sidecar = new Running(
    mainScript,
    ["serve", "--plugin", "demo", "--listen", "127.0.0.1:0", "--state-schema", "public"],
    { DATABASE_URL: database.ownerUrl },
  );
  await sidecar.logged('"msg":"adding triggers to \\"public\\".plugin_state"');
  sidecar.child.kill("SIGTERM");
  await sidecar.ended();
});
