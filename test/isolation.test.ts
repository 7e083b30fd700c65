import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { writePageToken } from "../src/service/page-token.ts";
import { Running } from "./command/run-command.ts";
import { operationIn, operations } from "./support/arbitraries.ts";
import { failure, TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { Model, placesOf, readPages } from "./support/model.ts";
import { expectExplained, type Planned, performRows } from "./support/rows.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

const mainScript = fileURLToPath(new URL("../dist/main.js", import.meta.url));

interface Pair {
  readonly a: TestClient;
  readonly b: TestClient;
  /** The plugins' ids. */
  readonly ids: { readonly a: string; readonly b: string };
}

let database: TestDatabase;
let sidecar: TestSidecar;
let pair: Pair;

beforeAll(async () => {
  database = await testDatabase();
  sidecar = await testSidecar(database, ["a", "b"]);
  const [a, b] = sidecar.clients;
  const [bindingA, bindingB] = sidecar.sidecar.bindings;
  pair = { a: a!, b: b!, ids: { a: bindingA!.pluginId, b: bindingB!.pluginId } };
});

afterAll(async () => {
  await sidecar[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

/** One process for each of the two plugins. */
async function twoProcesses(): Promise<Pair> {
  const [a, b] = await Promise.all([serve("a"), serve("b")]);
  return { a, b, ids: pair.ids };
}

async function serve(plugin: string): Promise<TestClient> {
  const args = ["serve", "--plugin", plugin, "--listen", "127.0.0.1:0"];
  const running = new Running(mainScript, args, database.environment);
  onTestFinished(async () => {
    running.child.kill("SIGTERM");
    await running.ended();
  });
  await running.printed("\n");
  const client = new TestClient(JSON.parse(running.stdout).bindings[0].address);
  onTestFinished(() => client[Symbol.dispose]());
  return client;
}

let places = 0;
const freshPlace = () => ({
  scope: { kind: ScopeKind.COMPANY, id: `company-${places++}` },
  namespace: "n",
});

describe.each([
  ["in one process", async () => pair],
  ["in two processes", twoProcesses],
])("two plugins %s", (_, start) => {
  test("with the same scopes and keys never see each other's entries, nor their revisions", async () => {
    const { a, b } = await start();
    const name = { ...freshPlace(), key: "k" };
    const { revision: before } = await b.call("get", name);

    const set = await a.call("set", { ...name, valueJson: '"of a"' });
    const [get, list, missed] = [
      await b.call("get", name),
      await b.call("list", name),
      await b.call("delete", name),
    ];
    const other = await b.call("set", { ...name, valueJson: '"of b"' });
    const removed = await b.call("delete", name);
    const kept = await a.call("get", name);

    expect(get.entry).toBeUndefined();
    expect(get.revision).toBe(before);
    expect(list).toMatchObject({ entries: [], nextPageToken: "", revision: before });
    expect(missed).toMatchObject({ existed: false, revision: before });
    expect(other).toMatchObject({ created: true, revision: before + 1n });
    expect(removed).toMatchObject({ existed: true, revision: before + 2n });
    expect(kept).toMatchObject({ entry: { valueJson: '"of a"' }, revision: set.revision });
  });

  test("refuse each other's page tokens, for the same request too", async () => {
    const { a, b } = await start();
    const place = freshPlace();
    for (const key of ["1", "2", "3"]) {
      await a.call("set", { ...place, key, valueJson: '"of a"' });
      await b.call("set", { ...place, key: `${key}b`, valueJson: '"of b"' });
    }
    const { nextPageToken: pageToken } = await a.call("list", { ...place, pageSize: 1 });

    const error = await failure(b.call("list", { ...place, pageSize: 1, pageToken }));

    expect(error).toMatchObject({ codeName: "INVALID_ARGUMENT", fields: ["page_token"] });
  });
});

describe("a page token that a worker forged", () => {
  const forge = (pluginId: string, lastKey: string, place: ReturnType<typeof freshPlace>) =>
    writePageToken([lastKey], {
      pluginId,
      rpc: "List",
      fields: ["company", place.scope.id, place.namespace, "m", "", "", "", false, false],
    });

  test("in the name of another plugin is refused", async () => {
    const place = freshPlace();
    const pageToken = forge(pair.ids.b, "m", place);
    const error = await failure(pair.a.call("list", { ...place, prefix: "m", pageToken }));
    expect(error).toMatchObject({ codeName: "INVALID_ARGUMENT", fields: ["page_token"] });
  });

  test("in its own name, with what no key holds, is refused", async () => {
    const place = freshPlace();
    const pageToken = forge(pair.ids.a, "m\0", place);
    const error = await failure(pair.a.call("list", { ...place, prefix: "m", pageToken }));
    expect(error.codeName).toBe("INVALID_ARGUMENT");
  });

  test.each(["", "a", "m1", "z"])(
    "in its own name, after the key %j, opens nothing that the request doesn't ask for",
    async (lastKey) => {
      const place = freshPlace();
      for (const key of ["l", "m1", "m2", "n"]) {
        await pair.a.call("set", { ...place, key, valueJson: '"of a"' });
        await pair.b.call("set", { ...place, key, valueJson: '"of b"' });
      }
      const pageToken = forge(pair.ids.a, lastKey, place);
      const { entries } = await pair.a.call("list", { ...place, prefix: "m", pageToken });
      const asked = ["m1", "m2"].filter((key) => key > lastKey);
      expect(entries.map(({ key }) => key)).toEqual(asked);
      expect(entries.every(({ valueJson }) => valueJson === '"of a"')).toBe(true);
    },
  );
});

test("whatever two plugins do at once in the same places, each behaves as if it were alone", async () => {
  await fc.assert(
    fc.asyncProperty(operations(2), operations(2), async (ofA, ofB) => {
      const shared = placesOf(`both-${places++}`);
      await Promise.all(
        [
          { client: pair.a, numbered: ofA },
          { client: pair.b, numbered: ofB },
        ].map(async ({ client, numbered }) => {
          const { revision } = await client.call("list", shared[0]!);
          const model = new Model(revision);
          const all = numbered.map(
            (one): Planned =>
              (revisionOf) =>
                operationIn(shared, one, revisionOf),
          );
          const rows = [0, 1, 2, 3].map((row) => all.filter((_, index) => index % 4 === row));
          expectExplained(model, await performRows([client], rows));
          for (const place of shared) {
            expect((await readPages(client, place)).flat()).toEqual(model.list(place));
          }
        }),
      );
    }),
    { numRuns: 25 },
  );
});
