import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import type { TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { type ForeignWriter, foreignWriter } from "./support/foreign-writer.ts";
import type { Name } from "./support/model.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let sidecar: TestSidecar;
let client: TestClient;
let pluginId: string;
let pool: pg.Pool;
let host: ForeignWriter;

beforeAll(async () => {
  database = await testDatabase();
  sidecar = await testSidecar(database);
  client = sidecar.client;
  pluginId = sidecar.sidecar.bindings[0]!.pluginId;
  pool = new pg.Pool({ ...database.connection, max: 8 });
  pool.on("error", () => undefined);
  host = foreignWriter(pool.query.bind(pool), pluginId);
});

afterAll(async () => {
  await pool.end();
  await sidecar[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const place = { scope: { kind: ScopeKind.INSTANCE, id: "" }, namespace: "hot" };
const named = (key: string): Name => ({ ...place, key });
const pluginRevision = async () => (await client.call("get", named("none"))).revision;
const isHeads = () => Math.random() < 0.5;

/** Does something again and again, in several rows at once. */
async function inRows(rows: number, times: number, act: (row: number, n: number) => Promise<void>) {
  await Promise.all(
    Array.from({ length: rows }, async (_, row) => {
      for (let n = 0; n < times; n++) {
        await act(row, n);
      }
    }),
  );
}

describe("foreign writers don't deadlock each other", () => {
  test.each([2, 6])("when %d upsert and delete one key", async (writers) => {
    const before = await pluginRevision();
    let writes = 0n;
    await inRows(writers, 200, async (row, n) => {
      if (isHeads()) {
        await host.upsert(named("one"), `"${row}-${n}"`);
        writes += 1n;
      } else {
        const existed = await host.delete(named("one"));
        writes += existed ? 1n : 0n;
      }
    });
    expect(await pluginRevision()).toBe(before + writes);
  });

  test("when one writes many rows at once and the others single ones", async () => {
    const keys = Array.from({ length: 10 }, (_, n) => named(`many-${n}`));
    for (const name of keys) {
      await host.upsert(name, "0");
    }
    const before = await pluginRevision();
    let writes = 0n;
    await inRows(4, 50, async (row, n) => {
      if (row === 0) {
        const { rowCount } = await pool.query(
          "update plugin_sidecar.plugin_state set value_json = '1' where state_key like 'many-%'",
        );
        writes += BigInt(rowCount ?? 0);
      } else {
        await host.upsert(keys[(n * row) % keys.length]!, "2");
        writes += 1n;
      }
    });
    expect(await pluginRevision()).toBe(before + writes);
  });
});

test("writes of the host and of the sidecar to the same keys all succeed, each with a revision of its own", async () => {
  const keys = ["a", "b", "c"];
  const before = await pluginRevision();
  const seen = new History();
  let foreignWrites = 0;
  const anyKey = () => keys[Math.floor(Math.random() * keys.length)]!;

  await Promise.all([
    inRows(3, 300, async (row, n) => {
      const name = named(anyKey());
      if (isHeads()) {
        await host.upsert(name, `"host ${row}-${n}"`);
        foreignWrites += 1;
      } else {
        const existed = await host.delete(name);
        foreignWrites += existed ? 1 : 0;
      }
    }),
    inRows(10, 150, async (row, n) => {
      const name = named(anyKey());
      if (isHeads()) {
        const valueJson = `"sidecar ${row}-${n}"`;
        const { revision } = await client.call("set", { ...name, valueJson });
        seen.wrote(revision, name.key, valueJson);
      } else {
        const { existed, revision } = await client.call("delete", name);
        if (existed) {
          seen.wrote(revision, name.key, undefined);
        }
      }
    }),
    inRows(2, 150, async () => {
      const { entry } = await client.call("get", named(anyKey()));
      if (entry !== undefined) {
        seen.read(entry.revision, entry.key, entry.valueJson);
      }
    }),
  ]);

  const { entries, revision } = await client.call("list", place);
  expect(revision).toBe(before + BigInt(foreignWrites + seen.writes.size));
  for (const key of keys) {
    const entry = entries.find((found) => found.key === key);
    const last = seen.lastWriteOf(key);
    if (entry === undefined || (last !== undefined && entry.revision > last.revision)) {
      expect(entry?.valueJson ?? '"host"').toMatch(/^"host/);
    } else {
      expect(last).toEqual({ revision: entry.revision, valueJson: entry.valueJson });
    }
    if (entry !== undefined) {
      seen.read(entry.revision, key, entry.valueJson);
    }
  }
});

/** What the sidecar's replies told of each revision: they must never contradict each other. */
class History {
  readonly writes = new Map<bigint, { key: string; valueJson: string | undefined }>();
  readonly #reads = new Map<bigint, { key: string; valueJson: string }>();

  wrote(revision: bigint, key: string, valueJson: string | undefined): void {
    expect(this.writes.has(revision)).toBe(false);
    this.writes.set(revision, { key, valueJson });
  }

  read(revision: bigint, key: string, valueJson: string): void {
    const read = this.#reads.get(revision) ?? { key, valueJson };
    this.#reads.set(revision, read);
    expect({ key, valueJson }).toEqual(read);
    if (valueJson.startsWith('"sidecar')) {
      // A read may overtake the write's own reply.
      expect(this.writes.get(revision) ?? read).toEqual(read);
    }
  }

  lastWriteOf(key: string) {
    const writes = [...this.writes].filter(([, write]) => write.key === key);
    const last = writes.sort(([a], [b]) => Number(a - b)).at(-1);
    return last && { revision: last[0], valueJson: last[1].valueJson };
  }
}
