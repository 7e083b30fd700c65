import { afterAll, beforeAll, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
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

test("a missing entry is an empty reply with the plugin's revision", async () => {
  const reply = await server.client.call("get", { scope: run("r1"), key: "missing" });
  expect(reply.entry).toBeUndefined();
  expect(reply.revision).toBeGreaterThanOrEqual(0n);
});

test("a set entry is read back with its scope, namespace, revision and times", async () => {
  const name = { scope: run("r1"), namespace: "notes", key: "a" };
  const set = await server.client.call("set", { ...name, valueJson: '{"b": 1.0}' });
  expect(set.created).toBe(true);
  const { entry, revision } = await server.client.call("get", name);
  expect(revision).toBe(set.revision);
  expect(entry).toMatchObject({ ...name, valueJson: '{"b": 1.0}', revision: set.revision });
  const ageMs = Date.now() - Number(entry!.createTime!.seconds) * 1000;
  expect(ageMs).toBeLessThan(60_000);
  expect(entry!.updateTime).toEqual(entry!.createTime);
});

test("a second set replaces the value, keeps the creation time and says it existed", async () => {
  const name = { scope: run("r1"), key: "again" };
  await server.client.call("set", { ...name, valueJson: "1" });
  const first = await server.client.call("get", name);
  const set = await server.client.call("set", { ...name, valueJson: "2" });
  const second = await server.client.call("get", name);
  expect(set.created).toBe(false);
  expect(second.entry!.valueJson).toBe("2");
  expect(second.entry!.createTime).toEqual(first.entry!.createTime);
});

test("an empty namespace is the namespace default", async () => {
  await server.client.call("set", { scope: instance, key: "ns", valueJson: "1" });
  const reply = await server.client.call("get", {
    scope: instance,
    namespace: "default",
    key: "ns",
  });
  expect(reply.entry!.namespace).toBe("default");
});

test("delete says whether the entry was there, and takes a revision only if it was", async () => {
  const name = { scope: instance, key: "gone" };
  const set = await server.client.call("set", { ...name, valueJson: "1" });
  const first = await server.client.call("delete", name);
  const second = await server.client.call("delete", name);
  expect(first).toMatchObject({ existed: true, revision: set.revision + 1n });
  expect(second).toMatchObject({ existed: false, revision: set.revision + 1n });
  expect((await server.client.call("get", name)).entry).toBeUndefined();
});

test("the same key in another scope, scope id or namespace is another entry", async () => {
  const names = [
    { scope: instance, namespace: "x", key: "k" },
    { scope: run("1"), namespace: "x", key: "k" },
    { scope: run("2"), namespace: "x", key: "k" },
    { scope: { kind: ScopeKind.ISSUE, id: "1" }, namespace: "x", key: "k" },
    { scope: run("1"), namespace: "y", key: "k" },
  ];
  await Promise.all(
    names.map((name, n) => server.client.call("set", { ...name, valueJson: `${n}` })),
  );
  const replies = await Promise.all(names.map((name) => server.client.call("get", name)));
  expect(replies.map((reply) => reply.entry!.valueJson)).toEqual(["0", "1", "2", "3", "4"]);
});

test("50 concurrent writes of one key get 50 different, gapless revisions", async () => {
  const name = { scope: instance, key: "hot" };
  const { revision: before } = await server.client.call("get", name);
  const replies = await Promise.all(
    Array.from({ length: 50 }, (_, n) => server.client.call("set", { ...name, valueJson: `${n}` })),
  );
  const revisions = replies.map(({ revision }) => revision).sort((a, b) => Number(a - b));
  expect(revisions).toEqual(Array.from({ length: 50 }, (_, n) => before + BigInt(n + 1)));
  const last = replies.findIndex(({ revision }) => revision === before + 50n);
  const { entry } = await server.client.call("get", name);
  expect(entry).toMatchObject({ valueJson: `${last}`, revision: before + 50n });
});
