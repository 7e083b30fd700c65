import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { failure, type TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { readPages } from "./support/model.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let server: TestSidecar;
let client: TestClient;

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database, ["demo", "other"]);
  client = server.client;
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

let scope: { kind: ScopeKind; id: string };
let scopes = 0;

beforeEach(() => {
  scope = { kind: ScopeKind.RUN, id: `pages-${scopes++}` };
});

const place = () => ({ scope, namespace: "" });

/** Stores entries with keys `key-00000` and so on, by plain SQL. */
async function store(count: number, value = "1"): Promise<void> {
  await database.query(
    `insert into plugin_sidecar.plugin_state (plugin_id, scope_kind, scope_id, state_key, value_json)
     select p.id, 'run', $1, 'key-' || lpad(n::text, 5, '0'), $3
       from generate_series(0, $2::int - 1) n, plugin_sidecar.plugins p where p.plugin_key = 'demo'`,
    [scope.id, count, value],
  );
}

const keyOf = (n: number) => `key-${String(n).padStart(5, "0")}`;
const sizes = (pages: readonly (readonly unknown[])[]) => pages.map((page) => page.length);

describe("a page", () => {
  test.each([
    [0, [100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100]],
    [1000, [1000, 100]],
    [5000, [1000, 100]],
    [0x7fffffff, [1000, 100]],
    [550, [550, 550]],
  ])("of page_size %d, of 1,100 entries, has %j", async (pageSize, expected) => {
    await store(1100);
    const pages = await readPages(client, { ...place(), pageSize });
    expect(sizes(pages)).toEqual(expected);
    expect(pages.flat().map(({ key }) => key)).toEqual(
      Array.from({ length: 1100 }, (_, n) => keyOf(n)),
    );
  });

  test.each([false, true])("holds at most 3 MiB of values; reverse: %s", async (reverse) => {
    await store(7, JSON.stringify("v".repeat(1_000_000)));
    const pages = await readPages(client, { ...place(), reverse });
    expect(sizes(pages)).toEqual([3, 3, 1]);
  });

  test("holds at least one entry, however large", async () => {
    await store(3, JSON.stringify("v".repeat(4 * 1024 * 1024 - 2)));
    expect(sizes(await readPages(client, place()))).toEqual([1, 1, 1]);
  });

  test("isn't filled by values that keys_only leaves out", async () => {
    await store(7, JSON.stringify("v".repeat(1_000_000)));
    expect(sizes(await readPages(client, { ...place(), keysOnly: true }))).toEqual([7]);
  });

  test("is empty, and the last, when what it would have held was deleted", async () => {
    await store(4);
    const first = await client.call("list", { ...place(), pageSize: 2 });
    await database.query("delete from plugin_sidecar.plugin_state where scope_id = $1", [scope.id]);
    const second = await client.call("list", { ...place(), pageToken: first.nextPageToken });
    expect(second).toMatchObject({ entries: [], nextPageToken: "" });
    expect(second.revision).toBe(first.revision + 4n);
  });
});

describe("a page token", () => {
  const listing = { prefix: "key-", start: "key", end: "l", pageSize: 2 };

  /** The request for the second page. */
  async function second() {
    await store(6);
    const request = { ...place(), namespace: "default", ...listing };
    const { nextPageToken: pageToken } = await client.call("list", request);
    return { ...request, pageToken };
  }

  test.each([
    ["scope.id", () => ({ scope: { ...scope, id: `${scope.id}0` } })],
    ["scope.kind", () => ({ scope: { ...scope, kind: ScopeKind.ISSUE } })],
    ["namespace", () => ({ namespace: "other" })],
    ["prefix", () => ({ prefix: "key" })],
    ["start", () => ({ start: "" })],
    ["start_after", () => ({ start: "", startAfter: "key" })],
    ["end", () => ({ end: "m" })],
    ["reverse", () => ({ reverse: true })],
    ["keys_only", () => ({ keysOnly: true })],
  ])("is refused with another %s than it was given for", async (_, change) => {
    const error = await failure(client.call("list", { ...(await second()), ...change() }));
    expect(error).toMatchObject(refused);
  });

  test("is accepted with another page_size, again and again", async () => {
    const request = await second();
    const one = await client.call("list", { ...request, pageSize: 1 });
    const all = await client.call("list", { ...request, pageSize: 1000 });
    expect(one.entries.map(({ key }) => key)).toEqual([keyOf(2)]);
    expect(all.entries.map(({ key }) => key)).toEqual([keyOf(2), keyOf(3), keyOf(4), keyOf(5)]);
  });

  test("is accepted by another sidecar of the plugin", async () => {
    const request = await second();
    await using another = await testSidecar(database);
    const page = await another.client.call("list", request);
    expect(page.entries.map(({ key }) => key)).toEqual([keyOf(2), keyOf(3)]);
  });

  test("is refused by another plugin", async () => {
    const error = await failure(server.clients[1]!.call("list", await second()));
    expect(error).toMatchObject(refused);
  });

  test("is refused when any byte of it is another, when it's cut short, and when it's longer", async () => {
    const request = await second();
    const bytes = Buffer.from(request.pageToken, "base64url");
    const changed = Array.from(bytes, (byte, at) => Buffer.from(bytes).fill(byte ^ 1, at, at + 1));
    const cut = Array.from(bytes, (_, at) => bytes.subarray(0, at)).slice(1);
    const longer = Buffer.concat([bytes, Buffer.of(0)]);
    for (const token of [...changed, ...cut, longer]) {
      const pageToken = token.toString("base64url");
      expect(await failure(client.call("list", { ...request, pageToken }))).toMatchObject(refused);
    }
  });

  const refused = {
    codeName: "INVALID_ARGUMENT",
    reason: "INVALID_FIELD",
    fields: ["page_token"],
  };
});

test.each([false, true])(
  "while others insert and delete, no key that stays is skipped, and none repeated; reverse: %s",
  async (reverse) => {
    await store(300);
    const stays = Array.from({ length: 300 }, (_, n) => keyOf(n));
    let isOver = false;
    const write = async (writer: number) => {
      for (let n = writer; !isOver; n += 7) {
        const key = `${keyOf((n * 31) % 300)}-${writer}`;
        await client.call("set", { ...place(), key, valueJson: "1" });
        await client.call("delete", { ...place(), key });
        await client.call("set", { ...place(), key: keyOf(n % 300), valueJson: "2" });
      }
    };
    const writers = [0, 1, 2, 3].map(write);
    try {
      for (const pageSize of [1, 7, 50]) {
        const keys = (await readPages(client, { ...place(), reverse, pageSize }))
          .flat()
          .map(({ key }) => key);
        const found = keys.filter((key) => stays.includes(key));
        expect(found).toEqual(reverse ? [...stays].reverse() : stays);
        expect(new Set(keys).size).toBe(keys.length);
      }
    } finally {
      isOver = true;
      await Promise.all(writers);
    }
  },
);
