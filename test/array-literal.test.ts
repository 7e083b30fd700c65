import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { plainArray, textArray } from "../src/postgres/array-literal.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";

let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
});

afterAll(async () => {
  await database[Symbol.asyncDispose]();
});

/** Texts as PostgreSQL keeps them: whole characters, without U+0000. */
const texts = fc
  .oneof(
    fc.string({ unit: "grapheme" }),
    fc.string({ unit: fc.constantFrom('"', "\\", ",", "{", "}", " ", "N", "U", "L", "\n", "\t") }),
    fc.constantFrom("", "NULL", "null", "{}", '\\"', "a b", " "),
  )
  .filter((text) => !text.includes("\0"));

test("any texts come out of PostgreSQL as they went in", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.option(texts), { maxLength: 30 }), async (values) => {
      const [row] = await database.query<{ values: (string | null)[] }>(
        "select $1::text[] as values",
        [textArray(values)],
      );
      expect(row!.values).toEqual(values);
    }),
    { numRuns: 300 },
  );
});

test("numbers and booleans come out as they went in, and what is null as null", async () => {
  const numbers = [0, null, -1, 2n ** 63n - 1n, -(2n ** 63n)];
  const [row] = await database.query<{ numbers: (string | null)[]; booleans: boolean[] }>(
    "select $1::bigint[]::text[] as numbers, $2::boolean[] as booleans",
    [plainArray(numbers), plainArray([true, false, null])],
  );
  expect(row!.numbers).toEqual(numbers.map((value) => (value === null ? null : String(value))));
  expect(row!.booleans).toEqual([true, false, null]);
});

test("no elements are an empty array", async () => {
  const [row] = await database.query("select $1::text[] as texts, $2::int[] as numbers", [
    textArray([]),
    plainArray([]),
  ]);
  expect(row).toEqual({ texts: [], numbers: [] });
});
