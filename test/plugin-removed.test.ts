import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { CallError, failure, type TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let sidecar: TestSidecar;
let client: TestClient;
let pluginId: string;

beforeEach(async () => {
  database = await testDatabase();
  sidecar = await testSidecar(database, ["demo", "other"]);
  client = sidecar.client;
  pluginId = sidecar.sidecar.bindings[0]!.pluginId;
});

afterEach(async () => {
  await sidecar[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const scope = { kind: ScopeKind.INSTANCE };
const name = { scope, key: "k" };

const remove = () => database.query("delete from plugin_sidecar.plugins where id = $1", [pluginId]);
const registerAgain = () =>
  database.query(
    `insert into plugin_sidecar.plugins (id, plugin_key, package_name, version, manifest_json)
     values ($1, 'demo', 'demo', '2.0.0', '{"capabilities": []}')`,
    [pluginId],
  );

const everyCall = () => [
  client.call("get", name),
  client.call("set", { ...name, valueJson: "1" }),
  client.call("delete", name),
  client.call("list", { scope }),
];

describe("while a plugin is served and the host removes it from the registry", () => {
  test("its entries go with it, however many, and no other plugin's", async () => {
    const other = sidecar.clients[1]!;
    for (const key of ["a", "b", "c"]) {
      await client.call("set", { scope, key, valueJson: "1" });
    }
    await other.call("set", { scope, key: "a", valueJson: '"other"' });
    await remove();
    const rows = await database.query("select value_json from plugin_sidecar.plugin_state");
    expect(rows).toEqual([{ value_json: "other" }]);
    const set = await other.call("set", { scope, key: "a", valueJson: "2" });
    expect(set).toMatchObject({ created: false, revision: 2n });
  });

  test("every RPC says that it isn't registered, naming it, and GetServerInfo works", async () => {
    await client.call("set", { ...name, valueJson: "1" });
    await remove();
    const errors = await Promise.all(everyCall().map(failure));
    for (const error of errors) {
      expect(error).toMatchObject({
        codeName: "FAILED_PRECONDITION",
        domain: "pluginstate",
        reason: "PLUGIN_NOT_REGISTERED",
        metadata: { plugin: pluginId },
      });
    }
    const { plugin } = await client.call("getServerInfo", {});
    expect(plugin).toMatchObject({ id: pluginId, key: "demo" });
  });

  test("it is served again as soon as the host has registered the same id, from nothing", async () => {
    await client.call("set", { ...name, valueJson: '"old"' });
    await remove();
    await Promise.allSettled(everyCall());
    await registerAgain();
    expect((await client.call("get", name)).entry).toBeUndefined();
    const set = await client.call("set", { ...name, valueJson: '"new"' });
    expect(set.created).toBe(true);
    const { entry, revision } = await client.call("get", name);
    expect(entry).toMatchObject({ valueJson: '"new"', revision: set.revision });
    expect(revision).toBe(set.revision);
  });

  test("under load, the removal succeeds and each call succeeds or says that it isn't registered", async () => {
    const answers = new Map<string, number>();
    let isOver = false;
    const rows = Array.from({ length: 16 }, async (_, row) => {
      for (let n = 0; !isOver; n++) {
        const key = `k${(n + row) % 5}`;
        const isDelete = n % 3 === 0;
        const answer = await (isDelete
          ? client.call("delete", { scope, key })
          : client.call("set", { scope, key, valueJson: `${n}` })
        ).then(() => "OK", describeError);
        answers.set(answer, (answers.get(answer) ?? 0) + 1);
      }
    });
    /** Waits for so many more calls to be answered so. */
    const more = async (answer: string, count: number) => {
      const before = answers.get(answer) ?? 0;
      await expect.poll(() => (answers.get(answer) ?? 0) - before).toBeGreaterThan(count);
    };
    try {
      for (let round = 0; round < 5; round++) {
        await more("OK", 50);
        await remove();
        await more(notRegistered, 20);
        await registerAgain();
      }
    } finally {
      isOver = true;
      await Promise.all(rows);
    }
    expect([...answers.keys()].sort()).toEqual([notRegistered, "OK"]);
  });
});

const notRegistered = "FAILED_PRECONDITION PLUGIN_NOT_REGISTERED";

function describeError(error: unknown): string {
  return error instanceof CallError ? `${error.codeName} ${error.reason}` : String(error);
}
