import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { failure } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { holdWrites } from "./support/hold-writes.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let server: TestSidecar;

const plenty = { maxValueBytes: 2 ** 22, rememberRequestsMs: 600_000 };

/** Serves plugins of the same names, but with quotas. */
const withQuotas = (quotaEntries?: number, quotaBytes?: number, plugin = "demo") =>
  testSidecar(database, [plugin], { bounds: { ...plenty, quotaEntries, quotaBytes } });

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database);
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

beforeEach(async () => {
  await database.query("truncate plugin_sidecar.plugin_state");
});

const scope = { kind: ScopeKind.RUN, id: "r" };
/** What a name counts for: scope id, namespace and a key of one letter. */
const nameBytes = "r".length + "default".length + 1;
const text = (bytes: number) => `"${"a".repeat(bytes - 2)}"`;
const named = (key: string) => ({ scope, key });
const set = (by: TestSidecar, key: string, valueJson = "1") =>
  by.client.call("set", { ...named(key), valueJson });
const setOf = (key: string, valueJson = "1") => ({
  operation: { case: "set" as const, value: { ...named(key), valueJson } },
});
const deleteOf = (key: string) => ({
  operation: { case: "delete" as const, value: named(key) },
});
const append = (by: TestSidecar, key: string, valueJson: string) => {
  const change = { case: "append" as const, value: { valueJson } };
  return by.client.call("update", { ...named(key), change });
};

/** The error of a write that must be refused: it changes nothing and takes no revision. */
async function refusal(write: () => Promise<unknown>) {
  const before = await server.client.call("list", { scope });
  const error = await failure(write());
  expect(await server.client.call("list", { scope })).toEqual(before);
  return error;
}

const exceeded = (quota: string, used: number, asked: number, limit: number) => ({
  codeName: "RESOURCE_EXHAUSTED",
  reason: "QUOTA_EXCEEDED",
  metadata: { quota, used: `${used}`, asked: `${asked}`, limit: `${limit}` },
  retryAfter: false,
});

describe("of entries", () => {
  test("as many as the quota are taken, one more is refused, and one less makes room", async () => {
    await using limited = await withQuotas(3);
    for (const key of ["a", "b", "c"]) {
      await set(limited, key);
    }
    expect(await refusal(() => set(limited, "d"))).toMatchObject(exceeded("entries", 3, 1, 3));
    expect(await refusal(() => append(limited, "d", "1"))).toMatchObject({
      reason: "QUOTA_EXCEEDED",
    });
    await limited.client.call("delete", named("b"));
    expect(await set(limited, "d")).toMatchObject({ created: true });
    expect(await refusal(() => set(limited, "b"))).toMatchObject(exceeded("entries", 3, 1, 3));
  });

  test("what is there can be written and changed when the quota is full, and far over", async () => {
    await using limited = await withQuotas(1);
    for (const key of ["a", "b", "c"]) {
      await set(server, key, "[]");
    }
    expect(await refusal(() => set(limited, "d"))).toMatchObject(exceeded("entries", 3, 1, 1));
    expect(await set(limited, "a", "[]")).toMatchObject({ created: false });
    expect(await append(limited, "a", text(1000))).toMatchObject({ changed: true });
    expect(await limited.client.call("delete", named("a"))).toMatchObject({ existed: true });
  });

  test("a Transact is judged by its total", async () => {
    await using limited = await withQuotas(3);
    const transact = (...operations: (ReturnType<typeof setOf> | ReturnType<typeof deleteOf>)[]) =>
      limited.client.call("transact", { operations });
    await transact(setOf("a"), setOf("b"));
    const error = await refusal(() => transact(setOf("c"), setOf("d"), setOf("e")));
    expect(error).toMatchObject(exceeded("entries", 2, 3, 3));
    await transact(setOf("c"), setOf("d"), deleteOf("a"), setOf("e"), deleteOf("b"));
    const { entries } = await limited.client.call("list", { scope });
    expect(entries.map(({ key }) => key)).toEqual(["c", "d", "e"]);
    // Over the quota it may not add, but swap and remove.
    await set(server, "x");
    expect(await refusal(() => transact(setOf("y"), setOf("z"), deleteOf("x")))).toMatchObject(
      exceeded("entries", 4, 1, 3),
    );
    expect((await transact(setOf("y"), deleteOf("x"))).results).toHaveLength(2);
    expect((await transact(deleteOf("y"), deleteOf("c"))).results).toHaveLength(2);
  });

  test("of calls in one batch each is judged by what those before it left", async () => {
    await using limited = await withQuotas(2);
    await set(limited, "a");
    await set(limited, "b");
    const writes = await holdWrites(database);
    const first = await writes.fill(() => set(limited, "a", "2"));
    const batch = [
      limited.client.call("delete", named("a")).then(() => "deleted"),
      set(limited, "c").then(() => "c"),
      set(limited, "a").then(() => "a"),
      set(limited, "d").then(() => "d"),
    ].map((answer) => answer.catch((error) => error.reason));
    await server.client.call("get", named("a"));
    await writes.release();
    await Promise.all(first);
    const answers = await Promise.all(batch);
    const { entries } = await limited.client.call("list", { scope });
    expect(answers).toEqual(["deleted", "c", "QUOTA_EXCEEDED", "QUOTA_EXCEEDED"]);
    expect(entries.map(({ key }) => key)).toEqual(["b", "c"]);
  });

  test("100 new entries at once, over two sidecars, fill the quota and not more", async () => {
    await using limited = await withQuotas(40);
    await using second = await withQuotas(40);
    const all = await Promise.allSettled(
      Array.from({ length: 100 }, (_, n) => set(n % 2 === 0 ? limited : second, `${n}`)),
    );
    expect(all.filter(({ status }) => status === "fulfilled")).toHaveLength(40);
    const { entries } = await server.client.call("list", { scope, pageSize: 1000 });
    expect(entries).toHaveLength(40);
  });

  test("what others write by plain SQL counts as well, once it is committed", async () => {
    await using limited = await withQuotas(2);
    const pluginId = limited.sidecar.bindings[0]!.pluginId;
    const insert = (key: string) => `insert into plugin_sidecar.plugin_state
      (plugin_id, scope_kind, scope_id, state_key, value_json) values ('${pluginId}', 'run', 'r', '${key}', '1');`;
    await database.query(`begin; ${insert("x")} rollback;`);
    await database.query(`${insert("a")}`);
    await set(limited, "b");
    expect(await refusal(() => set(limited, "c"))).toMatchObject(exceeded("entries", 2, 1, 2));
    await database.query(insert("c"));
    expect(await refusal(() => set(limited, "d"))).toMatchObject(exceeded("entries", 3, 1, 2));
    await database.query("delete from plugin_sidecar.plugin_state where state_key <> 'b'");
    expect(await set(limited, "d")).toMatchObject({ created: true });
  });

  test("each plugin has its own", async () => {
    await using limited = await withQuotas(1);
    await using other = await withQuotas(1, undefined, "other");
    await set(limited, "a");
    expect(await set(other, "a")).toMatchObject({ created: true });
    expect(await failure(set(other, "b"))).toMatchObject(exceeded("entries", 1, 1, 1));
  });
});

describe("of bytes", () => {
  test("scope id, namespace, key and value count, to the byte", async () => {
    await using limited = await withQuotas(undefined, 200);
    await set(limited, "a", text(100 - nameBytes));
    expect(await refusal(() => set(limited, "b", text(101 - nameBytes)))).toMatchObject(
      exceeded("bytes", 100, 101, 200),
    );
    await set(limited, "b", text(100 - nameBytes));
    expect(await refusal(() => set(limited, "c"))).toMatchObject(
      exceeded("bytes", 200, nameBytes + 1, 200),
    );
  });

  test("a value counts as it is kept, not as it was written", async () => {
    await using limited = await withQuotas(undefined, nameBytes + 11);
    await set(limited, "a", '   {"a"  : 1, "a":"é" }  ');
    await set(limited, "a", '"\\u0061bcdefghi"');
    expect(await refusal(() => set(limited, "a", "1e11"))).toMatchObject(
      exceeded("bytes", nameBytes + 11, 1, nameBytes + 11),
    );
  });

  test("what grows is judged by what it adds, and what shrinks is always taken", async () => {
    await using limited = await withQuotas(undefined, 200);
    await set(server, "a", `[${text(300)}]`);
    const used = nameBytes + 302;
    const error = await refusal(() => append(limited, "a", "1"));
    expect(error).toMatchObject(exceeded("bytes", used, 3, 200));
    expect(await refusal(() => set(limited, "b"))).toMatchObject(
      exceeded("bytes", used, nameBytes + 1, 200),
    );
    expect(await set(limited, "a", `[${text(300)}]`)).toMatchObject({ created: false });
    expect(await set(limited, "a", `[${text(299)}]`)).toMatchObject({ created: false });
    const capped = { case: "append" as const, value: { valueJson: "1", maxLength: 1 } };
    await limited.client.call("update", { ...named("a"), change: capped });
    expect(await append(limited, "a", "2")).toMatchObject({ valueJson: "[1, 2]" });
  });

  test("a Transact is judged by its total", async () => {
    await using limited = await withQuotas(undefined, 200);
    const transact = (...operations: (ReturnType<typeof setOf> | ReturnType<typeof deleteOf>)[]) =>
      limited.client.call("transact", { operations });
    await transact(setOf("a", text(150)));
    expect(await refusal(() => transact(setOf("b", text(100)), setOf("c")))).toMatchObject(
      exceeded("bytes", 150 + nameBytes, 101 + 2 * nameBytes, 200),
    );
    await transact(setOf("b", text(150)), setOf("b", text(100)), deleteOf("a"));
    await transact(setOf("b", text(190)), setOf("b", text(180)));
    expect((await limited.client.call("list", { scope })).entries).toHaveLength(1);
  });

  test("of calls in one batch each is judged by what those before it left", async () => {
    await using limited = await withQuotas(undefined, 100);
    const all = await Promise.all(
      Array.from({ length: 50 }, (_, n) =>
        append(limited, "a", `${n % 10}`).then(
          () => "done",
          (error) => error.reason,
        ),
      ),
    );
    // `[1, 2]`: three bytes each.
    const room = Math.floor((100 - nameBytes) / 3);
    expect(all.filter((answer) => answer === "done")).toHaveLength(room);
    expect(new Set(all)).toEqual(new Set(["done", "QUOTA_EXCEEDED"]));
  });
});

test("entries whose time is over fill no quota, swept or not", async () => {
  const noSweep = { sweepIntervalMs: 3_600_000 };
  const bounds = { ...plenty, quotaEntries: 2, quotaBytes: 200 };
  await using limited = await testSidecar(database, ["unswept"], { ...noSweep, bounds });
  const ttl = { seconds: 0n, nanos: 50_000_000 };
  for (const key of ["a", "b"]) {
    await limited.client.call("set", { ...named(key), valueJson: text(80), ttl });
  }
  await expect
    .poll(async () => (await limited.client.call("list", { scope })).entries.length)
    .toBe(0);
  await set(limited, "c", text(80));
  await set(limited, "a", text(80));
  expect(await failure(set(limited, "d"))).toMatchObject(exceeded("entries", 2, 1, 2));
});
