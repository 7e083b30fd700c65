import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { failure, type TestClient } from "../support/client.ts";
import { instance } from "./entries.ts";
import { HostDatabase } from "./host-database.ts";
import { type HostWorker, startHostWorker } from "./host-worker.ts";
import { AttachedSidecar, attach } from "./sidecar.ts";

/** The differences that docs/paperclip.md has in its table. */
describe("a worker's ctx.state and the sidecar's API, on the same entries,", () => {
  let database: HostDatabase;
  let sidecar: AttachedSidecar;
  let worker: HostWorker;
  let client: TestClient;

  beforeAll(async () => {
    database = await HostDatabase.create();
    const pluginId = await database.addPlugin("demo");
    await attach(database);
    sidecar = await AttachedSidecar.start(database);
    client = sidecar.client;
    worker = await startHostWorker(database, pluginId);
  });

  afterAll(async () => {
    await worker?.[Symbol.asyncDispose]();
    await sidecar?.stop();
    await database[Symbol.asyncDispose]();
  });

  const ours = async (key: string) =>
    (await client.call("get", { scope: instance, key })).entry?.valueJson;
  const write = (key: string, valueJson: string) =>
    client.call("set", { scope: instance, key, valueJson });
  const theirs = (stateKey: string) => ({ scopeKind: "instance", stateKey });

  test("each sees at once what the other wrote and removed, in any scope", async () => {
    const scope = { kind: ScopeKind.ISSUE, id: "ISSUE-7" };
    const place = { scopeKind: "issue", scopeId: "ISSUE-7", namespace: "n", stateKey: "k" };

    await worker.set(place, { from: "host" });
    const { entry } = await client.call("get", { scope, namespace: "n", key: "k" });
    expect(entry?.valueJson).toBe('{"from": "host"}');
    const set = { scope, namespace: "n", key: "k", valueJson: '{"from": "sidecar"}' };
    const { revision } = await client.call("set", set);
    expect(revision).toBe(entry!.revision + 1n);
    expect(await worker.get(place)).toEqual({ from: "sidecar" });

    await worker.delete(place);
    const gone = await client.call("get", { scope, namespace: "n", key: "k" });
    expect(gone.entry).toBeUndefined();
  });

  test("JSON null can't be set by the host, and is null for it", async () => {
    await expect(worker.set(theirs("null"), null)).rejects.toThrow();
    await write("null", "null");
    expect(await ours("null")).toBe("null");
    expect(await worker.get(theirs("null"))).toBeNull();
    expect(await worker.get(theirs("absent"))).toBeNull();
    expect(await ours("absent")).toBeUndefined();
  });

  test.each([
    ['"123"', 123],
    ['"true"', true],
    ['"{\\"a\\": 1}"', { a: 1 }],
  ])("the string %s is what it is, and parsed by the host", async (valueJson, parsed) => {
    await write("text", valueJson);
    expect(await ours("text")).toBe(valueJson);
    expect(await worker.get(theirs("text"))).toEqual(parsed);
  });

  test("a number beyond 2^53 is exact, and rounded by the host", async () => {
    await write("large", "9007199254740993");
    expect(await ours("large")).toBe("9007199254740993");
    expect(await worker.get(theirs("large"))).toBe(9_007_199_254_740_992);
  });

  test("an empty scope id is stored by the host, who doesn't find it, and refused", async () => {
    await worker.set({ ...theirs("empty"), scopeId: "" }, 1);
    expect(await worker.get({ ...theirs("empty"), scopeId: "" })).toBeNull();
    const scope = { kind: ScopeKind.ISSUE, id: "" };
    const error = await failure(client.call("set", { scope, key: "empty", valueJson: "1" }));
    expect(error.codeName).toBe("INVALID_ARGUMENT");
  });

  test("a scope kind that there isn't is stored by the host, and doctor counts such rows", async () => {
    await worker.set({ scopeKind: "planet", scopeId: "x", stateKey: "k" }, 1);
    expect(await worker.get({ scopeKind: "planet", scopeId: "x", stateKey: "k" })).toBe(1);
  });

  test("an entry with a time to live that the host overwrites has none afterwards", async () => {
    await client.call("set", {
      scope: instance,
      key: "ttl",
      valueJson: "1",
      ttl: { seconds: 60n },
    });
    await worker.set(theirs("ttl"), 2);
    const { entry } = await client.call("get", { scope: instance, key: "ttl" });
    expect(entry).toMatchObject({ valueJson: "2" });
    expect(entry!.expireTime).toBeUndefined();
  });
});

test("a plugin that is purged and installed again is found by its key, and starts empty", async () => {
  await using database = await HostDatabase.create();
  await database.addPlugin("demo");
  await database.addPlugin("other");
  await attach(database);
  await using sidecar = await AttachedSidecar.start(database, ["demo", "other"]);
  await sidecar.client.call("set", { scope: instance, key: "a", valueJson: "1" });

  await database.query("delete from plugins where plugin_key = 'demo'");
  const other = sidecar.clients.get("other")!;
  await other.call("set", { scope: instance, key: "a", valueJson: "1" });
  const pluginId = await database.addPlugin("demo");

  await expect
    .poll(() =>
      sidecar.client.call("set", { scope: instance, key: "b", valueJson: "2" }).catch(String),
    )
    .toMatchObject({ created: true });
  const { entries } = await sidecar.client.call("list", { scope: instance });
  expect(entries).toMatchObject([{ key: "b" }]);
  expect(await database.store().get(pluginId, "instance", "b")).toBe(2);
  const info = await sidecar.client.call("getServerInfo", {});
  expect(info.plugin?.id).toBe(pluginId);
});
