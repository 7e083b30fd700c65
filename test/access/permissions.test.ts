import { afterAll, beforeAll, expect, test } from "vitest";
import type { BindingConfig } from "../../src/config/config.ts";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import type { Permissions } from "../../src/state/permissions.ts";
import { failure, type TestClient } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { configFor, type TestSidecar, testSidecar } from "../support/sidecar.ts";

const read: Permissions = { capabilities: ["plugin.state.read"], scopes: undefined };
const write: Permissions = { capabilities: ["plugin.state.write"], scopes: undefined };
const issues: Permissions = {
  capabilities: ["plugin.state.read", "plugin.state.write"],
  scopes: [
    { kind: "issue", id: undefined },
    { kind: "agent", id: "A-1" },
  ],
};

let database: TestDatabase;
let sidecar: TestSidecar;
let reader: TestClient;
let writer: TestClient;
let scoped: TestClient;
let owner: TestClient;

beforeAll(async () => {
  database = await testDatabase();
  const bindings = [undefined, read, write, issues].map((permissions): BindingConfig => {
    const [binding] = configFor(database.url, ["demo"]).bindings;
    return { ...binding!, permissions };
  });
  sidecar = await testSidecar(database, ["demo"], { bindings });
  [owner, reader, writer, scoped] = sidecar.clients as [
    TestClient,
    TestClient,
    TestClient,
    TestClient,
  ];
  for (const scope of [instance, issue, agent, otherAgent]) {
    await owner.call("set", { scope, key: "k", valueJson: '"secret"' });
  }
});

afterAll(async () => {
  await sidecar[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const instance = { kind: ScopeKind.INSTANCE };
const issue = { kind: ScopeKind.ISSUE, id: "I-1" };
const agent = { kind: ScopeKind.AGENT, id: "A-1" };
const otherAgent = { kind: ScopeKind.AGENT, id: "A-2" };
const name = { scope: instance, key: "k" };
const set = { ...name, valueJson: "1" };
const increment = { change: { case: "increment", value: {} } } as const;

/** What each call is refused with, by its capability. */
async function denied(call: Promise<unknown>): Promise<string | undefined> {
  const { codeName, reason, metadata } = await failure(call);
  expect([codeName, reason]).toEqual(["PERMISSION_DENIED", "CAPABILITY_DENIED"]);
  return metadata?.["capability"];
}

test("a reader reads everything and writes nothing", async () => {
  await reader.call("get", name);
  await reader.call("list", { scope: instance });
  await reader.call("batchGet", { names: [name] });
  await reader.call("listScopes", {});

  for (const call of [
    reader.call("set", set),
    reader.call("delete", name),
    reader.call("update", { ...name, ...increment }),
    reader.call("transact", { operations: [{ operation: { case: "set", value: set } }] }),
    reader.call("deleteRange", { scope: instance }),
  ]) {
    expect(await denied(call)).toBe("plugin.state.write");
  }
  expect((await owner.call("get", name)).entry?.valueJson).toBe('"secret"');
});

test("a writer writes, and sees no value", async () => {
  const own = { scope: instance, key: "written" };
  await writer.call("set", { ...own, valueJson: "1" });
  await writer.call("delete", own);
  await writer.call("deleteRange", { scope: { kind: ScopeKind.RUN, id: "R" } });

  const update = { operation: { case: "update", value: { ...name, ...increment } } } as const;
  for (const call of [
    writer.call("get", name),
    writer.call("list", { scope: instance }),
    writer.call("batchGet", { names: [name] }),
    writer.call("listScopes", {}),
    writer.call("set", { ...own, valueJson: "1", returnPrevious: true }),
    writer.call("delete", { ...own, returnPrevious: true }),
    writer.call("update", { ...own, ...increment }),
    writer.call("transact", { operations: [update] }),
  ]) {
    expect(await denied(call)).toBe("plugin.state.read");
  }
});

test("only the allowed scopes can be named, in any call", async () => {
  for (const scope of [issue, { ...issue, id: "I-2" }, agent]) {
    await scoped.call("get", { scope, key: "k" });
    await scoped.call("set", { scope, key: "other", valueJson: "1" });
  }
  const good = { scope: issue, key: "k" };
  for (const scope of [instance, otherAgent]) {
    const bad = { scope, key: "k" };
    const kind = scope === instance ? "instance" : "agent";
    const setBad = { operation: { case: "set", value: { ...bad, valueJson: "1" } } } as const;
    const setGood = { operation: { case: "set", value: { ...good, valueJson: "1" } } } as const;
    const check = { ...bad, condition: { case: "ifPresent", value: true } } as const;
    for (const call of [
      scoped.call("get", bad),
      scoped.call("set", { ...bad, valueJson: "1" }),
      scoped.call("delete", bad),
      scoped.call("update", { ...bad, ...increment }),
      scoped.call("list", { scope }),
      scoped.call("deleteRange", { scope }),
      scoped.call("batchGet", { names: [good, bad] }),
      scoped.call("transact", { operations: [setGood, setBad] }),
      scoped.call("transact", { checks: [check], operations: [setGood] }),
    ]) {
      const { codeName, reason, metadata } = await failure(call);
      expect([codeName, reason]).toEqual(["PERMISSION_DENIED", "SCOPE_DENIED"]);
      expect(metadata).toEqual({ scope_kind: kind });
    }
  }
});

test("ListScopes tells of the allowed scopes only, however its pages fall", async () => {
  const seen: string[] = [];
  for (let pageToken = ""; ; ) {
    const page = await scoped.call("listScopes", { pageSize: 1, pageToken });
    for (const { scope } of page.scopes) seen.push(`${scope!.kind} ${scope!.id}`);
    pageToken = page.nextPageToken;
    if (pageToken === "") break;
    expect(page.scopes).toHaveLength(1);
  }

  expect(seen.toSorted()).toEqual([
    `${ScopeKind.AGENT} A-1`,
    `${ScopeKind.ISSUE} I-1`,
    `${ScopeKind.ISSUE} I-2`,
  ]);
});

test("GetServerInfo says what a listener allows", async () => {
  const all = await owner.call("getServerInfo", {});
  const some = await scoped.call("getServerInfo", {});
  const readOnly = await reader.call("getServerInfo", {});

  expect(all.capabilities).toEqual(["plugin.state.read", "plugin.state.write"]);
  expect(all.allowedScopes).toEqual([]);
  expect(readOnly.capabilities).toEqual(["plugin.state.read"]);
  expect(some.allowedScopes.map(({ kind, id }) => [kind, id])).toEqual([
    [ScopeKind.ISSUE, undefined],
    [ScopeKind.AGENT, "A-1"],
  ]);
});
