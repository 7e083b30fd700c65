import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import type { SetRequest } from "../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { failure, type TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let server: TestSidecar;
let client: TestClient;

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database);
  client = server.client;
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

type Condition = SetRequest["condition"];
const ifRevision = (value: bigint): Condition => ({ case: "ifRevision", value });
const ifAbsent: Condition = { case: "ifAbsent", value: true };
const ifPresent: Condition = { case: "ifPresent", value: true };

/** Every write of one entry; each makes an array of an array. */
const writes = {
  set: (condition: Condition) => client.call("set", { ...name, condition, valueJson: "[1]" }),
  delete: (condition: Condition) => client.call("delete", { ...name, condition }),
  update: (condition: Condition) => {
    const change = { case: "append" as const, value: { valueJson: "1" } };
    return client.call("update", { ...name, condition, change });
  },
};
const methods = Object.keys(writes) as (keyof typeof writes)[];

let name: { scope: { kind: ScopeKind; id: string }; key: string };
let tests = 0;

beforeEach(() => {
  name = { scope: { kind: ScopeKind.RUN, id: `${tests++}` }, key: "k" };
});

/** Makes the entry and returns its revision. */
async function makeEntry(): Promise<bigint> {
  return (await client.call("set", { ...name, valueJson: "[]" })).revision;
}

/** The error of a write that must be lost: it changes nothing and takes no revision. */
async function lost(method: keyof typeof writes, condition: Condition) {
  const before = await client.call("get", name);
  const error = await failure(writes[method](condition));
  expect(await client.call("get", name)).toEqual(before);
  expect(error.fields).toEqual([]);
  expect(error.retryAfter).toBe(false);
  return error;
}

describe.each(methods)("%s", (method) => {
  test("if_revision is met by the entry's own revision, and takes the next one", async () => {
    const revision = await makeEntry();
    const reply = await writes[method](ifRevision(revision));
    expect(reply.revision).toBe(revision + 1n);
  });

  test("if_revision that isn't the entry's is ABORTED with the entry's", async () => {
    const first = await makeEntry();
    const current = await makeEntry();
    for (const revision of [first, current + 1n, 0n, 2n ** 63n - 1n]) {
      expect(await lost(method, ifRevision(revision))).toMatchObject({
        codeName: "ABORTED",
        reason: "REVISION_MISMATCH",
        metadata: { current: `${current}` },
      });
    }
  });

  test("if_revision of an entry that isn't there is ABORTED, without a current revision", async () => {
    const revision = await makeEntry();
    await client.call("delete", name);
    for (const asked of [revision, revision + 1n, 0n]) {
      expect(await lost(method, ifRevision(asked))).toMatchObject({
        codeName: "ABORTED",
        reason: "REVISION_MISMATCH",
        metadata: {},
      });
    }
  });

  test("if_absent of an entry that is there is ALREADY_EXISTS with its revision", async () => {
    const current = await makeEntry();
    expect(await lost(method, ifAbsent)).toMatchObject({
      codeName: "ALREADY_EXISTS",
      reason: "ENTRY_EXISTS",
      metadata: { current: `${current}` },
    });
  });

  test("if_present is met by an entry that is there", async () => {
    const revision = await makeEntry();
    expect((await writes[method](ifPresent)).revision).toBe(revision + 1n);
  });

  test("if_present of an entry that isn't there is FAILED_PRECONDITION, without a current revision", async () => {
    expect(await lost(method, ifPresent)).toMatchObject({
      codeName: "FAILED_PRECONDITION",
      reason: "ENTRY_ABSENT",
      metadata: {},
    });
  });

  test.each<[string, Condition]>([
    ["if_revision", ifRevision(-1n)],
    ["if_revision", ifRevision(-(2n ** 63n))],
    ["if_absent", { case: "ifAbsent", value: false }],
    ["if_present", { case: "ifPresent", value: false }],
  ])("%s that asks for nothing sensible is INVALID_FIELD, naming it", async (field, condition) => {
    await makeEntry();
    const before = await client.call("get", name);
    const error = await failure(writes[method](condition));
    expect(error).toMatchObject({
      codeName: "INVALID_ARGUMENT",
      reason: "INVALID_FIELD",
      fields: [field],
    });
    expect(await client.call("get", name)).toEqual(before);
  });

  test("of 20 at once with the same if_revision, one is done", async () => {
    const revision = await makeEntry();
    const all = Array.from({ length: 20 }, () => writes[method](ifRevision(revision)));
    const settled = await Promise.allSettled(all);
    expect(settled.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    const reasons = settled.flatMap((one) => (one.status === "rejected" ? [one.reason] : []));
    const current = method === "delete" ? {} : { current: `${revision + 1n}` };
    for (const error of reasons) {
      expect(error).toMatchObject({ reason: "REVISION_MISMATCH", metadata: current });
    }
    expect((await client.call("get", name)).revision).toBe(revision + 1n);
  });
});

test.each(["set", "update"] as const)(
  "%s if_absent makes an entry that isn't there",
  async (method) => {
    expect(await writes[method](ifAbsent)).toMatchObject({ created: true });
    expect((await client.call("get", name)).entry?.valueJson).toBe("[1]");
  },
);

test("a delete if_absent of what isn't there succeeds, and takes no revision", async () => {
  const { revision } = await client.call("get", name);
  expect(await writes.delete(ifAbsent)).toMatchObject({ existed: false, revision });
});

test("of 20 sets if_absent at once, one makes the entry", async () => {
  const all = Array.from({ length: 20 }, () => writes.set(ifAbsent));
  const settled = await Promise.allSettled(all);
  const done = settled.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  expect(done).toMatchObject([{ created: true }]);
  const metadata = { current: `${done[0]!.revision}` };
  for (const one of settled) {
    expect(one.status === "fulfilled" || one.reason.metadata).toEqual(
      one.status === "fulfilled" ? true : metadata,
    );
  }
});

test("a condition is judged by what a foreign writer committed", async () => {
  const revision = await makeEntry();
  await database.query(
    "update plugin_sidecar.plugin_state set value_json = '[2]' where scope_id = $1",
    [name.scope.id],
  );
  expect(await lost("set", ifRevision(revision))).toMatchObject({
    metadata: { current: `${revision + 1n}` },
  });
  expect(await writes.set(ifRevision(revision + 1n))).toMatchObject({ created: false });
});

describe("return_previous", () => {
  const all = { returnPrevious: true } as const;

  test("answers the entry as it was, with its value, revision and times, or nothing", async () => {
    const created = await client.call("set", { ...name, ...all, valueJson: '{"n": 1.0}' });
    const first = await client.call("get", name);
    const set = await client.call("set", { ...name, ...all, valueJson: "[1]" });
    const second = await client.call("get", name);
    const change = { case: "append" as const, value: { valueJson: "2" } };
    const update = await client.call("update", { ...name, ...all, change });
    const third = await client.call("get", name);
    const deleted = await client.call("delete", { ...name, ...all });
    const nothing = await client.call("delete", { ...name, ...all });

    expect(created.previous).toBeUndefined();
    expect(set.previous).toEqual(first.entry);
    expect(update.previous).toEqual(second.entry);
    expect(deleted.previous).toEqual(third.entry);
    expect(third.entry).toMatchObject({ valueJson: "[1, 2]", revision: update.revision });
    expect(nothing.previous).toBeUndefined();
  });

  test("isn't answered unless it is asked for", async () => {
    await makeEntry();
    expect((await writes.set(ifPresent)).previous).toBeUndefined();
    expect((await writes.update(ifPresent)).previous).toBeUndefined();
    expect((await writes.delete(ifPresent)).previous).toBeUndefined();
  });

  test("answers the entry's time to live", async () => {
    const ttl = { seconds: 3600n };
    await client.call("set", { ...name, valueJson: "1", ttl });
    const { entry } = await client.call("get", name);
    const { previous } = await client.call("set", { ...name, ...all, valueJson: "2" });
    expect(entry!.expireTime).toBeDefined();
    expect(previous).toEqual(entry);
    expect((await client.call("get", name)).entry!.expireTime).toBeUndefined();
  });

  test("answers the entry also when a unique append changes nothing", async () => {
    await client.call("set", { ...name, valueJson: "[1]" });
    const { entry } = await client.call("get", name);
    const change = { case: "append" as const, value: { valueJson: "1", unique: true } };
    const { changed, previous } = await client.call("update", { ...name, ...all, change });
    expect(changed).toBe(false);
    expect(previous).toEqual(entry);
  });

  test("answers many large entries at once, each done once", async () => {
    const keys = Array.from({ length: 16 }, (_, n) => `large ${n}`);
    const large = `"${"v".repeat(2 * 1024 * 1024)}"`;
    for (const key of keys) {
      await client.call("set", { ...name, key, valueJson: large });
    }
    const { revision } = await client.call("get", name);
    const replies = await Promise.all(
      keys.map((key) => client.call("set", { ...name, ...all, key, valueJson: "1" })),
    );
    expect(replies.every(({ previous }) => previous?.valueJson === large)).toBe(true);
    expect(new Set(replies.map((reply) => reply.revision)).size).toBe(keys.length);
    expect((await client.call("get", name)).revision).toBe(revision + BigInt(keys.length));
  });

  test("answers each of many concurrent writes what the one before it wrote", async () => {
    const replies = await Promise.all(
      Array.from({ length: 50 }, (_, n) =>
        client.call("set", { ...name, ...all, valueJson: `${n}` }).then((reply) => ({ n, reply })),
      ),
    );
    replies.sort((a, b) => Number(a.reply.revision - b.reply.revision));
    const previous = replies.map(({ reply }) => reply.previous?.valueJson);
    expect(previous).toEqual([undefined, ...replies.slice(0, -1).map(({ n }) => `${n}`)]);
  });
});
