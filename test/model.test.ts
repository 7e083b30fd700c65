import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type NumberedOperation, operationIn, operations } from "./support/arbitraries.ts";
import type { TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { type Listing, Model, placesOf, type Quotas, readPages } from "./support/model.ts";
import { perform } from "./support/operations.ts";
import { expectExplained, type Planned, performRows } from "./support/rows.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let sidecars: TestSidecar[];
let clients: TestClient[];

beforeAll(async () => {
  database = await testDatabase();
  sidecars = [await testSidecar(database), await testSidecar(database)];
  clients = sidecars.map(({ client }) => client);
});

afterAll(async () => {
  await Promise.all(sidecars.map((sidecar) => sidecar[Symbol.asyncDispose]()));
  await database[Symbol.asyncDispose]();
});

let runs = 0;

/** Places that no run before used, and a model that stands where the plugin stands. */
async function begin(quotas?: Quotas) {
  runs += 1;
  const places = placesOf(`run-${runs}`);
  const { revision } = await clients[0]!.call("list", places[0]!);
  return { places, model: new Model(revision, quotas) };
}

/** Does operations on the clients in turn, each of which must answer as the model does. */
async function expectAsModel(
  by: readonly TestClient[],
  numbered: readonly NumberedOperation[],
  { places, model }: Awaited<ReturnType<typeof begin>>,
) {
  for (const [index, one] of numbered.entries()) {
    const client = by[index % by.length]!;
    const operation = operationIn(places, one, (name) => model.revisionOf(name));
    expect(await perform(client, operation)).toEqual(model.apply(operation));
    if (operation.do === "list") {
      const pages = await readPages(client, operation.listing);
      expect(pages).toEqual(slices(model.list(operation.listing), operation.listing));
    }
  }
}

test("one after the other, on two sidecars in turn, operations answer as a map with a counter does", async () => {
  await fc.assert(
    fc.asyncProperty(operations(4), async (numbered) => {
      await expectAsModel(clients, numbered, await begin());
    }),
    { numRuns: 40 },
  );
});

test("one after the other, on two sidecars in turn, operations fill quotas as the model says", async () => {
  const quotas = { entries: 4, bytes: 120 };
  const bounds = { maxValueBytes: 2 ** 22, rememberRequestsMs: 600_000 };
  const limited = { bounds: { ...bounds, quotaEntries: quotas.entries, quotaBytes: quotas.bytes } };
  await using first = await testSidecar(database, ["demo"], limited);
  await using second = await testSidecar(database, ["demo"], limited);
  await fc.assert(
    fc.asyncProperty(operations(2), async (numbered) => {
      await database.query("delete from plugin_sidecar.plugin_state");
      await expectAsModel([first.client, second.client], numbered, await begin(quotas));
    }),
    { numRuns: 25 },
  );
});

test("side by side, operations answer as if they had come one after the other, by their revisions", async () => {
  const width = fc.constantFrom(1, 8, 80);
  await fc.assert(
    fc.asyncProperty(operations(2), width, async (numbered, rows) => {
      const { places, model } = await begin();
      const all = numbered.map(
        (one): Planned =>
          (revisionOf) =>
            operationIn(places, one, revisionOf),
      );
      const history = await performRows(clients, deal(all, rows));
      expectExplained(model, history);
      for (const place of places) {
        expect((await readPages(clients[0]!, place)).flat()).toEqual(model.list(place));
      }
    }),
    { numRuns: 50 },
  );
});

/** The pages that a listing without writers in between has. */
function slices<T>(entries: readonly T[], { pageSize }: Listing): T[][] {
  const size = pageSize || 100;
  const count = Math.max(1, Math.ceil(entries.length / size));
  return Array.from({ length: count }, (_, page) => entries.slice(page * size, (page + 1) * size));
}

function deal(all: readonly Planned[], rows: number): Planned[][] {
  return Array.from({ length: rows }, (_, row) => all.filter((_, index) => index % rows === row));
}
