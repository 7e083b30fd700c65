import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { operationIn, operations } from "./support/arbitraries.ts";
import type { TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import {
  expectExplained,
  type Listing,
  Model,
  type Operation,
  perform,
  performRows,
  placesOf,
  readPages,
} from "./support/model.ts";
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

/** Shrinking ends in time to tell what it has found. */
const patience = { interruptAfterTimeLimit: 25_000 };

let runs = 0;

/** Random operations in places that no run before used, and a model that stands where the plugin stands. */
async function begin(numbered: Parameters<typeof operationIn>[1][]) {
  runs += 1;
  const places = placesOf(`run-${runs}`);
  const all = numbered.map((operation) => operationIn(places, operation));
  const { revision } = await clients[0]!.call("list", places[0]!);
  return { all, places, model: new Model(revision) };
}

test("one after the other, on two sidecars in turn, operations answer as a map with a counter does", async () => {
  await fc.assert(
    fc.asyncProperty(operations(4), async (numbered) => {
      const { all, model } = await begin([...numbered]);
      for (const [index, operation] of all.entries()) {
        const client = clients[index % clients.length]!;
        expect(await perform(client, operation)).toEqual(model.apply(operation));
        if (operation.do === "list") {
          const pages = await readPages(client, operation.listing);
          expect(pages).toEqual(slices(model.list(operation.listing), operation.listing));
        }
      }
    }),
    { numRuns: 40, ...patience },
  );
});

test("side by side, operations answer as if they had come one after the other, by their revisions", async () => {
  const width = fc.constantFrom(1, 8, 80);
  await fc.assert(
    fc.asyncProperty(operations(2), width, async (numbered, rows) => {
      const { all, places, model } = await begin([...numbered]);
      const history = await performRows(clients, deal(all, rows));
      expectExplained(model, history);
      for (const place of places) {
        expect((await readPages(clients[0]!, place)).flat()).toEqual(model.list(place));
      }
    }),
    { numRuns: 50, ...patience },
  );
});

/** The pages that a listing without writers in between has. */
function slices<T>(entries: readonly T[], { pageSize }: Listing): T[][] {
  const size = pageSize || 100;
  const count = Math.max(1, Math.ceil(entries.length / size));
  return Array.from({ length: count }, (_, page) => entries.slice(page * size, (page + 1) * size));
}

function deal(all: readonly Operation[], rows: number): Operation[][] {
  return Array.from({ length: rows }, (_, row) => all.filter((_, index) => index % rows === row));
}
