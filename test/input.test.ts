import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { failure } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let server: TestSidecar;

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database);
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const instance = { kind: ScopeKind.INSTANCE };
const run = (id: string) => ({ kind: ScopeKind.RUN, id });
const ofKind = (kind: number) => ({ kind: kind as ScopeKind, id: "a" });

/** Every RPC that names a place. */
const methods = ["get", "set", "delete", "update", "list", "deleteRange"] as const;
type Method = (typeof methods)[number];

interface Fields {
  readonly scope?: { readonly kind: ScopeKind; readonly id?: string } | "missing";
  readonly namespace?: string;
  readonly key?: string;
}

/** Makes a call that is in order but for the fields given. */
function call(method: Method, { scope = instance, namespace = "", key = "k" }: Fields) {
  const place = scope === "missing" ? { namespace } : { scope, namespace };
  switch (method) {
    case "list":
    case "deleteRange":
      return server.client.call(method, place);
    case "update": {
      const change = { case: "increment" as const, value: {} };
      return server.client.call("update", { ...place, key, change });
    }
    case "set":
      return server.client.call("set", { ...place, key, valueJson: "1" });
    case "get":
    case "delete":
      return server.client.call(method, { ...place, key });
  }
}

/** The error of a call that must fail; other calls on the connection succeed, and nothing is written. */
async function refusal(method: Method, fields: Fields) {
  const before = await server.client.call("get", { scope: instance, key: "k" });
  const [error, beside] = await Promise.all([
    failure(call(method, fields)),
    server.client.call("get", { scope: instance, key: "k" }),
  ]);
  const after = await server.client.call("get", { scope: instance, key: "k" });
  expect([beside, after]).toEqual([before, before]);
  expect(error.detailBytes).toBeLessThan(6000);
  return error;
}

/** Bytes of UTF-8, in characters of 4 as far as that goes. */
const bytes = (count: number) => "\u{1f600}".repeat(count >> 2) + "a".repeat(count & 3);

describe.each(methods)("%s", (method) => {
  test.each<[string, string, Fields]>([
    ["no scope", "scope", { scope: "missing" }],
    ["an unspecified kind of scope", "scope.kind", { scope: ofKind(0) }],
    ["a kind of scope that isn't known", "scope.kind", { scope: ofKind(9) }],
    ["a negative kind of scope", "scope.kind", { scope: ofKind(-1) }],
    ["the largest kind of scope", "scope.kind", { scope: ofKind(0x7fffffff) }],
    ["the instance scope with an id", "scope.id", { scope: { ...instance, id: "a" } }],
    ["another scope without an id", "scope.id", { scope: { kind: ScopeKind.RUN } }],
    ["U+0000 in the scope's id", "scope.id", { scope: run("a\0b") }],
    ["U+0000 in the namespace", "namespace", { namespace: "\0" }],
  ])("with %s is refused, naming %s", async (_, field, fields) => {
    const error = await refusal(method, fields);
    expect(error).toMatchObject({ ...invalidField, fields: [field] });
    expect(error.message).not.toContain("\0");
  });

  test.each<[string, number, (text: string) => Fields]>([
    ["scope.id", 256, (id) => ({ scope: run(id) })],
    ["namespace", 256, (namespace) => ({ namespace })],
  ])("takes a %s of %d bytes, and not of one more", async (field, limit, withText) => {
    await call(method, withText(bytes(limit)));
    const error = await refusal(method, withText(bytes(limit + 1)));
    expect(error).toMatchObject(tooLarge(field, limit + 1, limit));
  });
});

describe.each(["get", "set", "delete", "update"] as const)("%s", (method) => {
  test.each([
    ["no key", ""],
    ["U+0000 in the key", "a\0"],
  ])("with %s is refused", async (_, key) => {
    const error = await refusal(method, { key });
    expect(error).toMatchObject({ ...invalidField, fields: ["key"] });
  });

  test("takes a key of 1024 bytes, and not of one more", async () => {
    await call(method, { key: bytes(1024) });
    const error = await refusal(method, { key: bytes(1025) });
    expect(error).toMatchObject(tooLarge("key", 1025, 1024));
  });

  test("tells the size of a key of 2 MiB, and nothing more of it", async () => {
    const key = "secret".repeat(350_000);
    const error = await refusal(method, { key });
    expect(error).toMatchObject(tooLarge("key", key.length, 1024));
    expect(error.message).not.toContain("secret");
  });
});

describe("list", () => {
  test.each(["prefix", "start", "startAfter", "end"] as const)(
    "takes %s of 1024 bytes, and not of one more, nor U+0000",
    async (bound) => {
      const field = bound === "startAfter" ? "start_after" : bound;
      await server.client.call("list", { scope: instance, [bound]: bytes(1024) });
      const large = server.client.call("list", { scope: instance, [bound]: bytes(1025) });
      expect(await failure(large)).toMatchObject(tooLarge(field, 1025, 1024));
      const withNul = server.client.call("list", { scope: instance, [bound]: "a\0" });
      expect(await failure(withNul)).toMatchObject({ ...invalidField, fields: [field] });
    },
  );

  test.each([-1, -0x80000000])("with a page_size of %d is refused", async (pageSize) => {
    const error = await failure(server.client.call("list", { scope: instance, pageSize }));
    expect(error).toMatchObject({ ...invalidField, fields: ["page_size"] });
  });

  test("with both start and start_after is refused", async () => {
    const list = server.client.call("list", { scope: instance, start: "a", startAfter: "a" });
    expect(await failure(list)).toMatchObject({ ...invalidField, fields: ["start_after"] });
  });

  test.each([
    ["text", "not a token"],
    ["one character", "A"],
    ["zeros", "A".repeat(60)],
    ["the bytes of an empty page", Buffer.alloc(28).toString("base64url")],
    ["a number", "100"],
    ["JSON", '{"after":"a"}'],
    ["a megabyte", "A".repeat(1024 * 1024)],
    ["U+0000", "\0"],
    ["emoji", "\u{1f600}".repeat(40)],
  ])("with %s for a page token is refused", async (_, pageToken) => {
    const error = await failure(server.client.call("list", { scope: instance, pageToken }));
    expect(error).toMatchObject({ ...invalidField, fields: ["page_token"] });
    expect(error.detailBytes).toBeLessThan(6000);
  });
});

test("the largest key in the largest namespace and scope is kept, whatever the bytes", async () => {
  const noise = (count: number) => Array.from({ length: count }, () => random()).join("");
  const name = { scope: run(noise(128)), namespace: noise(128), key: noise(512) };
  const set = await server.client.call("set", { ...name, valueJson: "1" });
  expect((await server.client.call("get", name)).entry).toMatchObject({
    ...name,
    ...revision(set),
  });
});

const random = () => String.fromCodePoint(0x80 + Math.floor(Math.random() * 0x700));
const revision = (reply: { revision: bigint }) => ({ revision: reply.revision });

const invalid = { codeName: "INVALID_ARGUMENT", domain: "pluginstate" };
const invalidField = { ...invalid, reason: "INVALID_FIELD" };

function tooLarge(field: string, size: number, limit: number) {
  const metadata = { size: String(size), limit: String(limit) };
  return { ...invalid, reason: "TOO_LARGE", fields: [field], metadata };
}
