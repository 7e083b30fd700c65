import fc from "fast-check";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { edgyText, validText } from "./json-text-documents.ts";
import { type CallError, failure } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

const mebibyte = 1024 * 1024;
const scope = { kind: ScopeKind.RUN, id: "values" };

let database: TestDatabase;
let server: TestSidecar;

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database);
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

afterEach(() => database.query("delete from plugin_sidecar.plugin_state"));

let keys = 0;

/** Sets a value under a fresh key, and reads it back. */
async function roundTrip(valueJson: string): Promise<string> {
  const name = { scope, key: `value-${keys++}` };
  await server.client.call("set", { ...name, valueJson });
  const { entry } = await server.client.call("get", name);
  return entry!.valueJson;
}

/** The error of setting a value over another, which must stay. */
async function refusal(valueJson: string): Promise<CallError> {
  const name = { scope, key: `refused-${keys++}` };
  const before = await server.client.call("set", { ...name, valueJson: "1" });
  const error = await failure(server.client.call("set", { ...name, valueJson }));
  const { entry, revision } = await server.client.call("get", name);
  expect(entry).toMatchObject({ valueJson: "1", revision: before.revision });
  expect(revision).toBe(before.revision);
  return error;
}

describe("a value is kept", () => {
  test.each([
    "null",
    "true",
    "false",
    "0",
    '""',
    "[]",
    "{}",
    '"123"',
    '"null"',
    '"{\\"a\\": 1}"',
    "12345678901234567890",
    "-12345678901234567890.12345678901234567890",
    "0.1000000000000000055511151231257827021181583404541015625",
    "1.0",
    "1.10",
    "-1",
    '"\u{1f600} \u{10ffff} \ue000 \uffff \ufeff \u2028 \u007f"',
    '"\\u0001\\n\\"\\\\"',
    '{"": 1, "é": 2, "__proto__": 3}',
  ])("and read back as it was: %s", async (text) => {
    expect(await roundTrip(text)).toBe(text);
  });

  test.each([
    ["-0", "0"],
    ["-0.0", "0.0"],
    ["1e400", `1${"0".repeat(400)}`],
    ["1E-3", "0.001"],
    ["1.50e1", "15.0"],
    [" \t\r\n[1,2] \n", "[1, 2]"],
    ['"\\ud83d\\ude00"', '"\u{1f600}"'],
    ['"\\u0041\\/"', '"A/"'],
  ])("but written as jsonb writes it: %j as %j", async (sent, read) => {
    expect(await roundTrip(sent)).toBe(read);
  });

  test("without the order of its object keys", async () => {
    expect(await roundTrip('{"long": 1, "b": 2, "a": 3}')).toBe('{"a": 3, "b": 2, "long": 1}');
  });

  test("with the last of duplicate keys", async () => {
    expect(await roundTrip('{"a": 1, "b": 2, "a": {"a": 3}}')).toBe('{"a": {"a": 3}, "b": 2}');
  });

  test.each([
    ["[", "]"],
    ['{"a": ', "}"],
  ])("1,000 levels deep: %s", async (open, close) => {
    const text = `${open.repeat(1000)}${open === "[" ? "" : "1"}${close.repeat(1000)}`;
    expect(await roundTrip(text)).toBe(text);
  });

  test.each([
    ["ASCII", "a".repeat(4 * mebibyte - 2)],
    ["beyond U+FFFF", `${"\u{1f600}".repeat(mebibyte - 1)}ab`],
    ["escapes", "\\n".repeat(2 * mebibyte - 1)],
  ])("when its text has exactly 4 MiB: %s", async (_, content) => {
    const text = `"${content}"`;
    expect((await roundTrip(text)) === text).toBe(true);
  });
});

describe("a value is refused, and nothing stored,", () => {
  test.each([
    ["U+0000", '"a\\u0000b"', 2],
    ["U+0000 in a key", '{"\\u0000": 1}', 2],
    ["a lone high surrogate", '"\\ud800"', 1],
    ["a lone low surrogate", '["\\udc00"]', 2],
    ["a high surrogate before a letter", '"\\ud83d\\u0041"', 1],
    ["surrogates in the wrong order", '"\\ude00\\ud83d"', 1],
    ["half a pair escaped", '"\\ud83d\u{1f600}"', 1],
    ["a lone surrogate in a key", '{"\\udfff": 1}', 2],
    ["no value", " ", 1],
    ["an open array", "[1", 2],
    ["a comma too many", "[1,]", 3],
    ["a bracket too many", "[1]]", 3],
    ["two values", "1 2", 2],
    ["a leading zero", "01", 1],
    ["a plus", "+1", 0],
    ["no digit after the point", "1.", 2],
    ["NaN", "NaN", 0],
    ["Infinity", "-Infinity", 1],
    ["single quotes", "'a'", 0],
    ["a bare key", "{a: 1}", 1],
    ["a control character", '"\n"', 1],
    ["an unknown escape", '"\\x41"', 1],
    ["a comment", "1 // one", 2],
    ["a byte order mark", "\ufeff1", 0],
    ["a no-break space", "\u00a01", 0],
    ["131,073 digits before the point", "1e131072", 0],
    ["16,384 digits after the point", "1e-16384", 0],
    ["an endless exponent", "1e99999999999999999999", 0],
    ["1,001 levels", "[".repeat(1001) + "]".repeat(1001), 1000],
    ["1,001 levels of both kinds", `${'{"a":['.repeat(500)}[]${"]}".repeat(500)}`, 3000],
  ])("for %s", async (_, text, offset) => {
    expect(await refusal(text)).toMatchObject({
      codeName: "INVALID_ARGUMENT",
      domain: "pluginstate",
      reason: "INVALID_VALUE",
      fields: ["value_json"],
      metadata: { offset: String(offset) },
    });
  });

  test("when it is missing", async () => {
    expect(await refusal("")).toMatchObject({
      codeName: "INVALID_ARGUMENT",
      reason: "INVALID_FIELD",
      fields: ["value_json"],
    });
  });

  test.each([
    ["ASCII", "a".repeat(4 * mebibyte - 1)],
    ["beyond U+FFFF", `${"\u{1f600}".repeat(mebibyte - 1)}abc`],
  ])("when its text is one byte larger than 4 MiB: %s", async (_, content) => {
    expect(await refusal(`"${content}"`)).toMatchObject({
      codeName: "INVALID_ARGUMENT",
      domain: "pluginstate",
      reason: "TOO_LARGE",
      fields: ["value_json"],
      metadata: { size: String(4 * mebibyte + 1), limit: String(4 * mebibyte) },
    });
  });

  test.each([
    ["bad JSON", '["secret-word" secret-word'],
    ["U+0000", '{"secret-word": "secret-word\\u0000"}'],
    ["a lone surrogate", '"secret-word\\ud800secret-word"'],
    ["its size", `"${"secret-word".repeat(500_000)}"`],
    ["its depth", `${"[".repeat(1001)}"secret-word"${"]".repeat(1001)}`],
    ["a number", '["secret-word", 1e131072]'],
  ])("and nothing of it stands in the error, nor SQL, when it's for %s", async (_, text) => {
    const error = await refusal(text);
    expect(error.detailBytes).toBeLessThan(6000);
    expect(everythingIn(error)).not.toMatch(/secret|select|insert|plugin_state|sqlstate|22P0/i);
  });
});

test("any JSON text is read back as PostgreSQL itself writes it, whatever is set at the same time", async () => {
  const anyJson = fc.json({ stringUnit: "binary" }).filter((text) => !text.includes("\\u0000"));
  const texts = fc.array(fc.oneof(validText(), anyJson), { minLength: 1 });
  await fc.assert(
    fc.asyncProperty(texts, async (sent) => {
      const rows = await database.query<{ text: string }>(
        "select sent::jsonb::text as text from unnest($1::text[]) with ordinality as s (sent, n) order by n",
        [sent],
      );
      const read = await Promise.all(sent.map(roundTrip));
      expect(read).toEqual(rows.map(({ text }) => text));
      expect(read.map(parsed)).toEqual(sent.map(parsed));
    }),
    { numRuns: 60 },
  );
});

test("a number without an exponent keeps every digit", async () => {
  const digits = (maxLength: number) =>
    fc.string({ unit: fc.constantFrom(..."0123456789"), minLength: 1, maxLength });
  const number = fc
    .tuple(fc.constantFrom("", "-"), fc.constantFrom(..."123456789"), digits(400), digits(400))
    .map(([sign, first, whole, fraction]) => `${sign}${first}${whole}.${fraction}`);
  await fc.assert(
    fc.asyncProperty(fc.array(number, { minLength: 1 }), async (numbers) => {
      expect(await Promise.all(numbers.map(roundTrip))).toEqual(numbers);
    }),
    { numRuns: 30 },
  );
});

test("a text that may have a fault is kept as JSON.parse reads it, or refused with the place", async () => {
  const texts = fc.array(edgyText().filter(isSendable), {
    minLength: 1,
    maxLength: 20,
    size: "max",
  });
  await fc.assert(
    fc.asyncProperty(texts, async (all) => {
      await Promise.all(all.map(expectKeptOrRefused));
    }),
    { numRuns: 30 },
  );
});

async function expectKeptOrRefused(text: string): Promise<void> {
  const name = { scope, key: `edgy-${keys++}` };
  const set = server.client.call("set", { ...name, valueJson: text });
  const isKept = await set.then(
    () => true,
    () => false,
  );
  const { entry } = await server.client.call("get", name);
  if (isKept) {
    expect(parsed(entry!.valueJson)).toEqual(parsed(text));
  } else {
    const error = await failure(set);
    expect(entry).toBeUndefined();
    expect(error).toMatchObject({ reason: "INVALID_VALUE", fields: ["value_json"] });
    expect(Number(error.metadata!["offset"])).toBeLessThanOrEqual(text.length);
  }
}

/** A client can't put half a surrogate pair into UTF-8, and an empty text is another error. */
function isSendable(text: string): boolean {
  return text !== "" && !/\p{Surrogate}/u.test(text);
}

/** What JSON.parse makes of it, with negative zero, which jsonb hasn't, as zero. */
function parsed(text: string): unknown {
  return JSON.parse(text, (_, value) => (value === 0 ? 0 : value));
}

function everythingIn(error: CallError): string {
  const { metadata } = error.cause as { metadata: { getMap(): Record<string, unknown> } };
  return [error.message, ...Object.values(metadata.getMap()).map(String)].join("\n");
}
