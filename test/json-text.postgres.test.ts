import fc from "fast-check";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { findJsonFault } from "../src/state/json-text.ts";
import { maxValueDepth } from "../src/state/limits.ts";
import { edgyNumber, edgyText, validText } from "./json-text-documents.ts";

const client = new pg.Client({ connectionString: inject("databaseUrl") });
beforeAll(() => client.connect());
afterAll(() => client.end());

const find = (text: string) => findJsonFault(text, maxValueDepth);

/** What jsonb makes of a text: the text it reads back, or the SQLSTATE it refuses with. */
async function keep(text: string): Promise<{ kept: string } | { refused: string }> {
  try {
    const { rows } = await client.query("select $1::jsonb::text as kept", [text]);
    return { kept: rows[0].kept };
  } catch (error) {
    if (error instanceof pg.DatabaseError && error.code) return { refused: error.code };
    throw error;
  }
}

/** Parses JSON with each number as a string of its exact value, and negative zero as zero. */
function parseExactly(text: string): unknown {
  const stringOrNumber = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/gs;
  return JSON.parse(
    text.replaceAll(stringOrNumber, (token) =>
      token.startsWith('"') ? token : `"${exactValue(token)}"`,
    ),
  );
}

/** The value of a number as significant digits and a power of ten: `-12.50e3` is `-125e2`. */
function exactValue(number: string): string {
  const [, sign, whole = "", fraction = "", exponent = "0"] =
    /^(-?)(\d+)\.?(\d*)(?:[eE](.+))?$/.exec(number) ?? [];
  const digits = (whole + fraction).replace(/^0+/, "");
  const significant = digits.slice(0, digits.length - trailingZeros(digits));
  if (significant === "") return "0";
  const power = BigInt(exponent) - BigInt(fraction.length) + BigInt(trailingZeros(digits));
  return `${sign}${significant}e${power}`;
}

function trailingZeros(digits: string): number {
  let zeros = 0;
  while (digits.at(-1 - zeros) === "0") zeros++;
  return zeros;
}

/** pg would send U+FFFD for it, which PostgreSQL keeps. */
const hasLoneSurrogate = (text: string) => /\p{Surrogate}/u.test(text);

describe("against PostgreSQL", () => {
  test("a text without fault is kept, with every number, string and key exactly as it was", async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(validText(), edgyText()), async (text) => {
        fc.pre(find(text) === undefined);
        const result = await keep(text);
        expect(result).toHaveProperty("kept");
        if ("kept" in result) expect(parseExactly(result.kept)).toEqual(parseExactly(text));
      }),
      { numRuns: 1000 },
    );
  });

  test("a text with a fault is refused", async () => {
    await fc.assert(
      fc.asyncProperty(edgyText(), async (text) => {
        fc.pre(find(text) !== undefined && !hasLoneSurrogate(text));
        expect(await keep(text)).toHaveProperty("refused");
      }),
      { numRuns: 1000 },
    );
  });

  test("a number is kept exactly or refused just as it is found without fault or not", async () => {
    await fc.assert(
      fc.asyncProperty(edgyNumber(), async (number) => {
        const result = await keep(number);
        expect("kept" in result).toBe(find(number) === undefined);
        if ("kept" in result) expect(exactValue(result.kept)).toBe(exactValue(number));
      }),
      { numRuns: 400 },
    );
  });

  test("a number is written out with as many more characters as are counted", async () => {
    const positive = edgyNumber().filter((number) => !number.startsWith("-"));
    await fc.assert(
      fc.asyncProperty(positive, async (number) => {
        const result = await keep(number);
        fc.pre("kept" in result && result.kept.length > number.length);
        const added = "kept" in result ? result.kept.length - number.length : 0;
        expect(findJsonFault(number, 0, added)).toBeUndefined();
        expect(findJsonFault(number, 0, added - 1)?.kind).toBe("number");
      }),
      { numRuns: 100 },
    );
  });

  test.each([
    ['{"a":1', "syntax", "22P02"],
    ['"\t"', "syntax", "22P02"],
    ["\u00a01", "syntax", "22P02"],
    ['"\\u0000"', "nul", "22P05"],
    ['{"\\u0000":1}', "nul", "22P05"],
    ['"\\ud800"', "surrogate", "22P02"],
    ['"\\ud83d😀"', "surrogate", "22P02"],
    ["1e131072", "number", "22003"],
    ["1e-16384", "number", "22003"],
    ["0e-16384", "number", "22003"],
  ])("%j: the fault of %s is PostgreSQL's %s", async (text, kind, sqlState) => {
    expect(find(text)?.kind).toBe(kind);
    expect(await keep(text)).toEqual({ refused: sqlState });
  });

  test.each([
    ["[", "]"],
    ['{"a":', "}"],
    ['[{"a":', "}]"],
  ])("the deepest value allowed is kept: %s", async (open, close) => {
    const times = maxValueDepth / (open.length === 6 ? 2 : 1);
    const text = `${open.repeat(times)}1${close.repeat(times)}`;
    expect(find(text)).toBeUndefined();
    expect(find(`[${text}]`)?.kind).toBe("depth");
    expect(await keep(text)).toEqual({ kept: text.replaceAll(":", ": ") });
  });

  test("PostgreSQL refuses what is nested twenty times deeper than allowed", async () => {
    const depth = 20 * maxValueDepth;
    expect(await keep("[".repeat(depth) + "]".repeat(depth))).toEqual({ refused: "54001" });
  });
});
