import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { findJsonFault, type JsonFault } from "../src/state/json-text.ts";
import { edgyText, mutated, validText } from "./json-text-documents.ts";

const maxDepth = 1000;
const find = (text: string): JsonFault | undefined => findJsonFault(text, maxDepth);
const found = (text: string) => {
  const fault = find(text);
  return fault && `${fault.kind} at ${fault.offset}`;
};

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

describe("against JSON.parse", () => {
  test("every document that JSON.stringify writes is without fault", () => {
    const space = fc.constantFrom("", " ", "\t", "\r\n");
    fc.assert(
      fc.property(fc.jsonValue({ stringUnit: "binary" }), space, (value, indent) => {
        expect(
          find(JSON.stringify(value, null, indent).replaceAll("\\u0000", "?")),
        ).toBeUndefined();
      }),
      { numRuns: 2000 },
    );
  });

  test("a document with any space, escapes and numbers is without fault", () => {
    fc.assert(
      fc.property(validText(), (text) => {
        JSON.parse(text);
        expect(find(text)).toBeUndefined();
      }),
      { numRuns: 5000 },
    );
  });

  test("a damaged document has a syntax fault exactly where JSON.parse throws", () => {
    fc.assert(
      fc.property(mutated(validText()), (text) => {
        const fault = find(text);
        fc.pre(fault === undefined || fault.kind === "syntax");
        expect(fault === undefined).toBe(isJson(text));
      }),
      { numRuns: 10_000 },
    );
  });

  test("an undamaged document never has a syntax fault, whatever else is wrong with it", () => {
    fc.assert(
      fc.property(edgyText(), (text) => {
        fc.pre(isJson(text));
        expect(find(text)?.kind).not.toBe("syntax");
      }),
      { numRuns: 5000 },
    );
  });

  test("every text of up to four characters of JSON's alphabet is judged as JSON.parse judges it", () => {
    const alphabet = [...'{}[]:,"\\u0e-. n', "1", "null", "\u00a0"];
    const texts = [""];
    for (let from = 0, length = 1; length <= 4; length++) {
      const to = texts.length;
      for (; from < to; from++) texts.push(...alphabet.map((next) => texts[from] + next));
    }
    expect(texts.filter((text) => (find(text) === undefined) !== isJson(text))).toEqual([]);
  });
});

describe("the place of a fault", () => {
  test("is where the text, cut off, would still be the beginning of a document", () => {
    fc.assert(
      fc.property(edgyText(), (text) => {
        const fault = find(text);
        fc.pre(fault !== undefined);
        const rest = find(text.slice(0, fault.offset));
        expect([undefined, "syntax"]).toContain(rest?.kind);
        expect(rest?.offset ?? fault.offset).toBe(fault.offset);
      }),
      { numRuns: 5000 },
    );
  });

  test.each([
    ["", "syntax at 0"],
    [" \t", "syntax at 2"],
    ["\ufeff1", "syntax at 0"],
    ["\u00a01", "syntax at 0"],
    ["nul", "syntax at 0"],
    ["nullx", "syntax at 4"],
    ["NaN", "syntax at 0"],
    ["+1", "syntax at 0"],
    ["01", "syntax at 1"],
    ["-", "syntax at 1"],
    ["[-]", "syntax at 2"],
    [".5", "syntax at 0"],
    ["[5.]", "syntax at 3"],
    ["1e", "syntax at 2"],
    ["1e+]", "syntax at 3"],
    ["1 2", "syntax at 2"],
    ["[1 2]", "syntax at 3"],
    ["[1,]", "syntax at 3"],
    ["[,1]", "syntax at 1"],
    ["[1}", "syntax at 2"],
    ["[1", "syntax at 2"],
    ["]", "syntax at 0"],
    ["[]]", "syntax at 2"],
    ["\u0000", "syntax at 0"],
    ["[]\u0000", "syntax at 2"],
    ['{"a":1,}', "syntax at 7"],
    ["{,}", "syntax at 1"],
    ["{1:2}", "syntax at 1"],
    ['{"a"}', "syntax at 4"],
    ['{"a":}', "syntax at 5"],
    ['{"a":1]', "syntax at 6"],
    ['{"a"\\u0000:1}', "syntax at 4"],
    ['"abc', "syntax at 4"],
    ['"abc\\', "syntax at 4"],
    ['"a\nb"', "syntax at 2"],
    ['"a\u0000b"', "syntax at 2"],
    ['"a\\x"', "syntax at 2"],
    ['"a\\u12"', "syntax at 2"],
    ['{"é":"漢\\u12g4"}', "syntax at 7"],
  ])("a fault of syntax: %j → %s", (text, expected) => {
    expect(found(text)).toBe(expected);
    expect(isJson(text)).toBe(false);
  });
});

describe("what JSON allows and jsonb does not", () => {
  test.each([
    ['"\\u0000"', "nul at 1"],
    ['["ab", "c\\u0000"]', "nul at 9"],
    ['{"\\u0000":1}', "nul at 2"],
    ['{"a":{"b\\u0000":1}}', "nul at 8"],
    ['"\\\\u0000"', undefined],
    ['"\\u00000"', "nul at 1"],
    ['"\\u0001"', undefined],
    ['"\\u1000"', undefined],
  ])("an escaped NUL: %j → %s", (text, expected) => {
    expect(found(text)).toBe(expected);
  });

  test.each([
    ['"\\ud83d\\ude00"', undefined],
    ['"\\uD800\\uDC00\\uDBFF\\uDFFF"', undefined],
    ['"\ud83d\ude00"', undefined],
    ['"\\ud7ff\\ue000"', undefined],
    ['"\\ud800"', "surrogate at 1"],
    ['"\\udfff"', "surrogate at 1"],
    ['{"a\\udc00":1}', "surrogate at 3"],
    ['"\\ud83dx"', "surrogate at 1"],
    ['"\\ud83d\\n"', "surrogate at 1"],
    ['"\\ud83d\\u0041"', "surrogate at 1"],
    ['"\\ud83d\\ud83d\\ude00"', "surrogate at 1"],
    ['"\\ud83d\\ude00\\ude00"', "surrogate at 13"],
    ['"\\ude00\\ud83d"', "surrogate at 1"],
    ['"a\ud83d"', "surrogate at 2"],
    ['"\ude00"', "surrogate at 1"],
    ['"\ude00\ud83d"', "surrogate at 1"],
    ['"\ud83d\ude00\ude00"', "surrogate at 3"],
    ['"\ud83d\\ude00"', "surrogate at 1"],
    ['"\\ud83d\ude00"', "surrogate at 1"],
    ['"\\ud83d😀"', "surrogate at 1"],
    ['"😀\\ude00"', "surrogate at 3"],
  ])("half of a surrogate pair: %j → %s", (text, expected) => {
    expect(found(text)).toBe(expected);
    expect(isJson(text)).toBe(true);
  });

  const zeros = (count: number) => "0".repeat(count);
  const nines = (count: number) => "9".repeat(count);
  test.each<[string, string, string | undefined]>([
    ["131,072 digits", nines(131_072), undefined],
    ["131,073 digits", nines(131_073), "number at 0"],
    ["131,072 digits and 16,383 behind them", `-${nines(131_072)}.${nines(16_383)}`, undefined],
    ["the largest power of ten", "1e131071", undefined],
    ["the power after it", "1e131072", "number at 0"],
    ["the power after it, negative and inside", '{"a":[1, -1E+131072]}', "number at 9"],
    ["two digits scaled up to the last place", "12e131070", undefined],
    ["two digits scaled up too far", "12e131071", "number at 0"],
    ["a fraction scaled up to the last place", "0.0001e131075", undefined],
    ["a fraction scaled up too far", "0.0001e131076", "number at 0"],
    ["a million zeros scaled away", `0.${zeros(1e6)}1e1000001`, undefined],
    ["16,383 digits behind the point", `0.${nines(16_383)}`, undefined],
    ["16,384 digits behind the point", `0.${nines(16_384)}`, "number at 0"],
    ["16,384 zeros behind the point", `1.${zeros(16_384)}`, "number at 0"],
    ["16,384 zeros, one scaled away", `1.${zeros(16_384)}e1`, undefined],
    ["the smallest power of ten", "1e-16383", undefined],
    ["the power below it", "1e-16384", "number at 0"],
    ["the smallest with a zero to spare", "1.0e-16383", "number at 0"],
    ["a power below it that ends in zeros", "10e-16384", "number at 0"],
    ["zero scaled up", "0e5", undefined],
    ["zero scaled up past any number", "0.00e1073741822", undefined],
    ["zero scaled up past any exponent", "0e1073741823", "number at 0"],
    ["zero scaled up much further", `0e${nines(400)}`, "number at 0"],
    ["zero scaled down to the last place", "0e-16383", undefined],
    ["zero scaled down too far", "0.0e-20000", "number at 0"],
    ["an exponent past 2^32", "1e4294967297", "number at 0"],
    ["an exponent past 2^64", "1e18446744073709551617", "number at 0"],
    ["a negative exponent past 2^64", "1e-18446744073709551617", "number at 0"],
    ["an exponent of 100,000 digits", `1e${nines(100_000)}`, "number at 0"],
    ["an exponent of 100,000 zeros", `1e${zeros(100_000)}5`, undefined],
  ])("the size of a number: %s", (_, text, expected) => {
    expect(found(text)).toBe(expected);
    expect(isJson(text)).toBe(true);
  });

  test.each([
    ["1e10", 7],
    ["-1e10", 7],
    ["1e-10", 7],
    ["12.5e3", 0],
    ["[1e10, 0e10, 1.5e10]", 7 + 0 + 5],
  ])("%s adds %d characters when it is written out", (text, added) => {
    expect(findJsonFault(text, 1, added)).toBeUndefined();
    expect(findJsonFault(text, 1, added - 1)?.kind).toBe("number");
  });

  test("a short text of numbers too long to be read back is refused where they become too many", () => {
    const text = (count: number) => `[${Array(count).fill("1e131071").join()}]`;
    expect(found(text(2048))).toBeUndefined();
    expect(found(text(5000))).toBe(`number at ${1 + 9 * 2048}`);
  });
});

describe("depth", () => {
  const shapes: [string, string, string][] = [
    ["arrays", "[", "]"],
    ["objects", '{"a":', "}"],
    ["spread out objects", '{ "a" : ', " } "],
  ];
  test.each(shapes)("%s may be as deep as asked for and no deeper", (_, open, close) => {
    const text = (depth: number) => `${open.repeat(depth)}1${close.repeat(depth)}`;
    for (const deepest of [0, 1, 7, 1000, 5000]) {
      expect(findJsonFault(text(deepest), deepest)).toBeUndefined();
      const fault = findJsonFault(text(deepest + 1), deepest);
      expect(fault).toMatchObject({ kind: "depth", offset: open.length * deepest });
    }
  });

  test("an empty array or object counts as a level", () => {
    expect(findJsonFault("[{}]", 2)).toBeUndefined();
    expect(findJsonFault("[{}]", 1)).toMatchObject({ kind: "depth", offset: 1 });
    expect(findJsonFault("[]", 0)).toMatchObject({ kind: "depth", offset: 0 });
  });

  test("what is side by side is not deep", () => {
    expect(findJsonFault(`[${Array(5000).fill("[{}]").join()}]`, 3)).toBeUndefined();
  });

  test("brackets are told from braces at every level", () => {
    const text = '[{"a":['.repeat(2000) + "]}]".repeat(2000);
    expect(findJsonFault(text, 6000)).toBeUndefined();
    const crossed = text.replace("]}]", "]]}");
    expect(findJsonFault(crossed, 6000)).toMatchObject({ kind: "syntax", offset: 14_001 });
  });

  test("4 MiB of opening brackets end in a fault, not in a stack overflow", () => {
    const text = "[".repeat(4 * 1024 * 1024);
    expect(found(text)).toBe("depth at 1000");
    expect(findJsonFault(text, Number.POSITIVE_INFINITY)).toMatchObject({ offset: text.length });
  });
});

describe("long texts", () => {
  test.each([
    ["plain characters", "a"],
    ["characters of other scripts", "漢"],
    ["raw pairs", "😀"],
    ["escapes", "\\n"],
    ["escaped pairs", "\\ud83d\\ude00"],
  ])("a long string of %s is read to its end", (_, piece) => {
    const text = `"${piece.repeat(300_000)}`;
    expect(found(`${text}"`)).toBeUndefined();
    expect(found(text)).toBe(`syntax at ${text.length}`);
    expect(found(`${text}\\u0000"`)).toBe(`nul at ${text.length}`);
  });
});

test("a message is a sentence without any part of the value", () => {
  const secret = "hunter2";
  const texts = [
    `{"${secret}":${secret}}`,
    `{"${secret}":"${secret}`,
    `["${secret}\\${secret}"]`,
    `["${secret}\u0001${secret}"]`,
    `["${secret}\\u0000${secret}"]`,
    `["${secret}\\ud800${secret}"]`,
    `{"${secret}":1e9999999}`,
    `{"${secret}":9.9e-99999}`,
    `{"${secret}":${"[".repeat(1000)}"${secret}"`,
  ];
  for (const text of texts) {
    const message = find(text)?.message;
    expect(message).toMatch(/^[A-Z].*\.$/);
    expect(message).not.toMatch(/hunter2|9/);
  }
});
