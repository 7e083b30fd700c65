import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

// Sets without conditions are written by a function of their own, set_entries, which mustn't be told from the
// general one, write_entries: two plugins are told the same, one of them beside a check, with which the general
// one is used.

let database: TestDatabase;
let server: TestSidecar;

beforeAll(async () => {
  database = await testDatabase();
  // What has expired stays in the table.
  server = await testSidecar(database, ["plain", "judged"], { sweepIntervalMs: 3_600_000 });
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const scopes = [
  { kind: ScopeKind.INSTANCE },
  { kind: ScopeKind.RUN, id: "r" },
  { kind: ScopeKind.RUN, id: "ü" },
];
const momentMs = 1;
const moment = { nanos: momentMs * 1_000_000 };
const hour = { seconds: 3600n };

const oneSet = fc.record({
  scope: fc.constantFrom(...scopes),
  namespace: fc.constantFrom("", "other"),
  key: fc.constantFrom("a", "b", "c", "é", "f", "d".repeat(300)),
  valueJson: fc.oneof(fc.json({ maxDepth: 2 }), fc.constant(`"${"long ".repeat(4_000)}"`)),
  ttl: fc.constantFrom(undefined, undefined, moment, hour),
});
const identity = ({ scope, namespace, key }: { scope: object; namespace: string; key: string }) =>
  JSON.stringify([scope, namespace, key]);
const anywhere = fc.uniqueArray(oneSet, { minLength: 1, maxLength: 20, selector: identity });
const inOnePlace = fc
  .tuple(oneSet, fc.uniqueArray(oneSet, { minLength: 1, maxLength: 6, selector: ({ key }) => key }))
  .map(([{ scope, namespace }, sets]) => sets.map((set) => ({ ...set, scope, namespace })));
const batches = fc.array(fc.oneof(anywhere, inOnePlace), { minLength: 1, maxLength: 6 });
const check = {
  scope: scopes[1]!,
  key: "never",
  condition: { case: "ifAbsent", value: true },
} as const;

/** What is in the table for each plugin, with its counters, but for the time of day. */
async function stored(): Promise<Record<string, unknown>> {
  const rows = await database.query<{ plugin: string; content: unknown }>(`
    select p.plugin_key as plugin, jsonb_build_object(
             'revision', r.revision, 'entries', r.entries, 'bytes', r.bytes,
             'rows', (select jsonb_agg(jsonb_build_array(
                        s.scope_kind, s.scope_id, s.namespace, s.state_key, s.value_json, s.sidecar_revision, s.sidecar_bytes,
                        s.sidecar_created_at = s.updated_at, s.sidecar_expires_at - s.updated_at)
                        order by s.scope_kind, s.scope_id, s.namespace, s.state_key)
                        from plugin_sidecar.plugin_state s where s.plugin_id = p.id)) as content
      from plugin_sidecar.plugins p join plugin_sidecar.plugin_revisions r on r.plugin_id = p.id`);
  return Object.fromEntries(rows.map(({ plugin, content }) => [plugin, content]));
}

test("what Sets without conditions do is what they do where they are judged one after the other", async () => {
  const [plain, judged] = server.clients;
  await fc.assert(
    fc.asyncProperty(batches, async (rounds) => {
      for (const sets of rounds) {
        const operations = sets.map((value) => ({ operation: { case: "set" as const, value } }));
        const told = await plain!.call("transact", { operations });
        expect(told).toEqual(await judged!.call("transact", { operations, checks: [check] }));
        const rows = await stored();
        expect(rows["plain"]).toEqual(rows["judged"]);
        await sleep(2 * momentMs);
      }
    }),
    // Once the plugins differ they stay so: anything smaller would fail as well.
    { numRuns: 60, endOnFailure: true },
  );
});
