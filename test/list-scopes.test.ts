import type { MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import type { ListScopesRequestSchema } from "../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { writePageToken } from "../src/service/page-token.ts";
import { failure, type TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { englishSidecar } from "./support/english-database.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let server: TestSidecar;
let client: TestClient;
let pluginId: string;

beforeAll(async () => {
  database = await testDatabase();
  // Entries whose time is over stay in the table here.
  server = await testSidecar(database, ["demo", "other"], { sweepIntervalMs: 3_600_000 });
  client = server.client;
  pluginId = server.sidecar.bindings[0]!.pluginId;
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

afterEach(() => database.query("delete from plugin_sidecar.plugin_state"));

/** A place as a test writes it: kind, id, namespace. */
type Place = readonly [ScopeKind, string, string];

async function store([kind, id, namespace]: Place, key = "k", valueJson = "1", by = client) {
  await by.call("set", { scope: { kind, id }, namespace, key, valueJson });
}

type Request = MessageInitShape<typeof ListScopesRequestSchema>;

async function pagesOf(request: Request, by = client) {
  const pages: Summary[][] = [];
  let pageToken = "";
  do {
    const page = await by.call("listScopes", { ...request, pageToken });
    pages.push(
      page.scopes.map(({ scope, namespace, entries, bytes }) => ({
        place: [scope!.kind, scope!.id, namespace],
        entries: Number(entries),
        bytes: Number(bytes),
      })),
    );
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return pages;
}

interface Summary {
  readonly place: Place;
  readonly entries: number;
  readonly bytes: number;
}

async function placesOf(request: Request = {}, by = client): Promise<Place[]> {
  return (await pagesOf(request, by)).flat().map(({ place }) => place);
}

const { INSTANCE, COMPANY, PROJECT, PROJECT_WORKSPACE, AGENT, ISSUE, GOAL, RUN } = ScopeKind;

/** In order: kinds as the host spells them, then bytes of UTF-8. */
const inOrder: readonly Place[] = [
  [AGENT, "\u0001", "n"],
  [AGENT, "A", "n"],
  [AGENT, "B", "a"],
  [AGENT, "B", "ab"],
  [AGENT, "B", "b"],
  [AGENT, "a", "B"],
  [AGENT, "a", "a"],
  [AGENT, "a-b", "n"],
  [AGENT, "ab", "n"],
  [AGENT, "\uffff", "n"],
  [AGENT, "\u{10000}", "n"],
  [COMPANY, "c", "n"],
  [GOAL, "c", "n"],
  [INSTANCE, "", "Z"],
  [INSTANCE, "", "a"],
  [INSTANCE, "", "é"],
  [ISSUE, "c", "n"],
  [PROJECT, "c", "n"],
  [PROJECT_WORKSPACE, "c", "n"],
  [RUN, "c", "default"],
];

async function storeAll(by = client): Promise<void> {
  await Promise.all(inOrder.map((place) => store(place, "k", "1", by)));
}

test("a plugin without entries has no places", async () => {
  const page = await client.call("listScopes", {});
  expect(page).toMatchObject({ scopes: [], nextPageToken: "" });
});

test("places come by kind as the host spells it, scope id and namespace, in byte order", async () => {
  await storeAll();
  expect(await placesOf()).toEqual(inOrder);
});

test.each([1, 2, 3, 7, 19, 20, 21])("pages of %d hold every place once", async (pageSize) => {
  await storeAll();
  const pages = await pagesOf({ pageSize });
  expect(pages.flat().map(({ place }) => place)).toEqual(inOrder);
  expect(pages.length).toBe(Math.ceil(inOrder.length / pageSize));
});

test("of one kind, only places of that kind are listed, also page by page", async () => {
  await storeAll();
  for (const kind of [AGENT, INSTANCE, RUN]) {
    const expected = inOrder.filter((place) => place[0] === kind);
    expect(await placesOf({ kind })).toEqual(expected);
    expect(await placesOf({ kind, pageSize: 2 })).toEqual(expected);
  }
});

test("entries are counted, and bytes of scope id, namespace, key and value", async () => {
  await store([RUN, "é", "n"], "k1", '"ü"');
  await store([RUN, "é", "n"], "k2", '{"a": [1, 2.50]}');
  await store([INSTANCE, "", ""], "k", "null");
  const [pages] = await pagesOf({});
  expect(pages).toEqual([
    { place: [INSTANCE, "", "default"], entries: 1, bytes: 7 + 1 + 4 },
    { place: [RUN, "é", "n"], entries: 2, bytes: 2 + 1 + 2 + 4 + (2 + 1 + 2 + 16) },
  ]);
});

test("an entry of which nobody has asked how large it is counts like any other", async () => {
  await store([RUN, "r", "n"], "k", '{"a": [1, 2.50]}');
  const before = await pagesOf({});
  await database.query(
    "begin; set local plugin_sidecar.writer = 'sidecar'; update plugin_sidecar.plugin_state set sidecar_bytes = null; commit",
  );
  expect(await pagesOf({})).toEqual(before);
});

test("another plugin's entries are its own", async () => {
  await store([RUN, "r", "n"]);
  await store([RUN, "other", "n"], "k", "1", server.clients[1]);
  expect(await placesOf()).toEqual([[RUN, "r", "n"]]);
});

test("a page's revision is the plugin's at that moment", async () => {
  const { revision } = await client.call("set", {
    scope: { kind: INSTANCE },
    key: "k",
    valueJson: "1",
  });
  expect(await client.call("listScopes", {})).toMatchObject({ revision });
});

test("a place whose entries' time is over isn't listed, and makes no further page", async () => {
  const ttl = { nanos: 1_000_000 };
  await store([RUN, "a", "n"]);
  for (const id of ["a", "b", "c"]) {
    await client.call("set", {
      scope: { kind: RUN, id },
      namespace: "n",
      key: "expired",
      valueJson: "1",
      ttl,
    });
  }
  await expect.poll(() => placesOf()).toEqual([[RUN, "a", "n"]]);
  expect(await pagesOf({ pageSize: 1 })).toEqual([
    [{ place: [RUN, "a", "n"], entries: 1, bytes: 1 + 1 + 1 + 1 }],
  ]);
});

test("places that a foreign writer made, and no request can name, are left out", async () => {
  await store([AGENT, "a", "n"]);
  for (const [kind, id, namespace] of [
    ["agent", null, "n"],
    ["agent", "", "n"],
    ["agent", "b", ""],
    ["instance", "i", "n"],
    ["instance", null, ""],
    ["planet", "p", "n"],
  ]) {
    await database.query(
      `insert into plugin_sidecar.plugin_state
              (plugin_id, scope_kind, scope_id, namespace, state_key, value_json)
       values ($1, $2, $3, $4, 'k', '1')`,
      [pluginId, kind, id, namespace],
    );
  }
  expect(await placesOf({ pageSize: 1 })).toEqual([[AGENT, "a", "n"]]);
});

test("a page ends early, after a place of very many entries", async () => {
  await database.query(
    `begin;
     set local plugin_sidecar.writer = 'sidecar';
     insert into plugin_sidecar.plugin_state
            (plugin_id, scope_kind, scope_id, namespace, state_key, value_json)
     select '${pluginId}', 'run', 'r', 'a', n::text, '1' from generate_series(1, 100000) n;
     commit`,
  );
  await store([RUN, "r", "b"]);
  await store([RUN, "r", "c"]);
  const pages = await pagesOf({});
  expect(pages.map((page) => page.map(({ entries }) => entries))).toEqual([[100_000], [1, 1]]);
});

test("a page is one snapshot: an entry that moves about is in one place", async () => {
  // So many between its two places that it moves while a page is read.
  await Promise.all(Array.from({ length: 300 }, (_, n) => store([RUN, `m-${n}`, "n"])));
  const ends = ["a", "z"].map((id) => ({ scope: { kind: RUN, id }, key: "k" }));
  await client.call("set", { ...ends[0]!, valueJson: "1" });
  let isOver = false;
  const move = async () => {
    for (let n = 0; !isOver; n++) {
      const to = { ...ends[(n + 1) % 2]!, valueJson: "1" };
      await client.call("transact", {
        operations: [
          { operation: { case: "delete", value: ends[n % 2]! } },
          { operation: { case: "set", value: to } },
        ],
      });
    }
  };
  const moving = move();
  try {
    for (let n = 0; n < 50; n++) {
      const { scopes } = await client.call("listScopes", { kind: RUN, pageSize: 1000 });
      expect(scopes.length).toBe(301);
    }
  } finally {
    isOver = true;
    await moving;
  }
});

const refused = { codeName: "INVALID_ARGUMENT", reason: "INVALID_FIELD", fields: ["page_token"] };

test("a page token is refused with another kind, by another plugin, and by another RPC", async () => {
  await storeAll();
  const { nextPageToken: pageToken } = await client.call("listScopes", { pageSize: 1 });
  const scope = { kind: INSTANCE };
  await store([INSTANCE, "", "default"], "k2");
  await store([INSTANCE, "", "default"], "k3");
  const list = await client.call("list", { scope, pageSize: 1 });
  const errors = [
    await failure(client.call("listScopes", { kind: AGENT, pageToken })),
    await failure(server.clients[1]!.call("listScopes", { pageToken })),
    await failure(client.call("list", { scope, pageToken })),
    await failure(client.call("listScopes", { pageToken: list.nextPageToken })),
  ];
  expect(errors).toMatchObject([refused, refused, refused, refused]);
});

test("a page token is accepted with another page_size, and by another sidecar", async () => {
  await storeAll();
  const { nextPageToken: pageToken } = await client.call("listScopes", { pageSize: 3 });
  await using another = await testSidecar(database);
  const page = await another.client.call("listScopes", { pageSize: 2, pageToken });
  expect(page.scopes.map(({ scope, namespace }) => [scope!.kind, scope!.id, namespace])).toEqual(
    inOrder.slice(3, 5),
  );
});

test.each([
  ["of no kind there is", ["planet", "a", "n"]],
  ["of too few names", ["agent", "a"]],
  ["of too many names", ["agent", "a", "n", "n"]],
])("a forged page token %s is refused", async (_, last) => {
  const pageToken = writePageToken(last, { pluginId, rpc: "ListScopes", fields: [undefined] });
  expect(await failure(client.call("listScopes", { pageToken }))).toMatchObject(refused);
});

test.each<[string, Request]>([
  ["page_size", { pageSize: -1 }],
  ["kind", { kind: 99 as ScopeKind }],
])("a bad %s is refused", async (field, request) => {
  const error = await failure(client.call("listScopes", request));
  expect(error).toMatchObject({ codeName: "INVALID_ARGUMENT", fields: [field] });
});

test("a page reads its own places by index, and neither the rest nor those before it", async () => {
  await using database = await testDatabase();
  await using sidecar = await testSidecar(database);
  const { pluginId } = sidecar.sidecar.bindings[0]!;
  await database.query(
    `begin;
     set local plugin_sidecar.writer = 'sidecar';
     insert into plugin_sidecar.plugin_state
            (plugin_id, scope_kind, scope_id, namespace, state_key, value_json)
     select '${pluginId}', 'run', lpad((n / 10)::text, 5, '0'), 'n', n::text, '1'
       from generate_series(0, 9999) n;
     commit`,
  );
  /** Entries read so far, by whatever index or none. PostgreSQL tells of them some time later. */
  const reads = async () => {
    const [row] = await database.query<{ reads: string }>(
      `select coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0) as reads
         from pg_stat_user_tables where relname = 'plugin_state'`,
    );
    return Number(row?.reads);
  };
  const first = await sidecar.client.call("listScopes", { pageSize: 500 });
  await expect.poll(reads, { timeout: 20_000 }).toBeGreaterThanOrEqual(5000);
  const between = await reads();
  const { nextPageToken: pageToken } = first;
  const second = await sidecar.client.call("listScopes", { pageSize: 10, pageToken });
  await expect.poll(reads, { timeout: 20_000 }).toBeGreaterThanOrEqual(between + 100);

  expect(second.scopes.map(({ entries }) => entries)).toEqual(Array(10).fill(10n));
  expect(between).toBeLessThan(7_000);
  expect((await reads()) - between).toBeLessThan(200);
});

test("a database that sorts as English does answers the same", async () => {
  await using english = await englishSidecar();
  await storeAll(english.client);
  expect(await placesOf({}, english.client)).toEqual(inOrder);
  expect(await placesOf({ pageSize: 3 }, english.client)).toEqual(inOrder);
});
