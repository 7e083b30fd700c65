import fc from "fast-check";

/** JSON as other writers write it: any space, any escapes, any numbers that PostgreSQL keeps. */
export function validText(): fc.Arbitrary<string> {
  return documentOf(stringOf(harmlessPiece()), modestNumber());
}

/** Texts at the edges of what JSON and jsonb take: about half of them have a fault. */
export function edgyText(): fc.Arbitrary<string> {
  const piece = fc.oneof(
    { weight: 60, arbitrary: harmlessPiece() },
    { weight: 1, arbitrary: fc.constantFrom(...harmfulPieces) },
  );
  const number = fc.oneof({ weight: 4, arbitrary: modestNumber() }, edgyNumber());
  const text = documentOf(stringOf(piece), number);
  return fc.oneof(text, mutated(text));
}

/** A text with one to three small things done to it, or cut off. */
export function mutated(text: fc.Arbitrary<string>): fc.Arbitrary<string> {
  const change = fc.record({
    where: fc.double({ min: 0, max: 1, noNaN: true }),
    removed: fc.constantFrom(0, 0, 1, 1, 2, 6, Number.POSITIVE_INFINITY),
    added: fc.constantFrom("", ...splinters),
  });
  return fc
    .tuple(text, fc.array(change, { minLength: 1, maxLength: 3 }))
    .map(([whole, changes]) => changes.reduce(apply, whole));
}

function apply(text: string, change: { where: number; removed: number; added: string }): string {
  const at = Math.round(change.where * text.length);
  return text.slice(0, at) + change.added + text.slice(at + change.removed);
}

const splinters = [
  ..."{}[]\",:\\/u0189dDcCeE+-._tfn'#\u0000\u0001\u001f\t\n\r\v\f \u0085\u00a0\u2028\ufeff\u007fé漢",
  ...["\ud83d", "\ude00", "\ud83d\ude00", "\\u", "\\u0000", "\\ud83d", "\\ude00", "\\n", "\\x"],
  ...["0.", "1e", "e5", "1e131072", "1e-16384", "-0", "01", "null", "true", "fals", "NaN", "//"],
  ...["{}", "[]", '""', '"":', ",,", "\\ud83d\\ude00", '"a"', "{,", "/**/"],
];

const harmfulPieces = [
  ...[
    "\\u0000",
    "\\ud83d",
    "\\ude00",
    "\\uDBFF\\uD800",
    "\\udc00\\udbff",
    "\\ud83d\\n",
    "\\ud83d\\\\",
  ],
  ...[
    "\ud83d\\ude00",
    "\\ud83d\ude00",
    "\\ud83d😀",
    "😀\\ude00",
    "\ud83d",
    "\ude00",
    "\ude00\ud83d",
  ],
  ...["\u0000", "\u0001", "\n", "\t", "\\", "\\u12", "\\u12g4", "\\U0041", "\\'", "\\0", '"'],
];

function harmlessPiece(): fc.Arbitrary<string> {
  const hex = fc.integer({ min: 1, max: 0xd7ff }).map((unit) => unit.toString(16).padStart(4, "0"));
  const escapes = ['\\"', "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t"];
  return fc.oneof(
    fc.constantFrom(
      ..."abc {}[]:,'0e-/\u007f\u0080é漢\u2028\ud7ff\ue000\ufeff\uffff😀",
      ...escapes,
    ),
    fc.constantFrom("\\u0001", "\\uD83D\\uDE00", "\\ud83d\\ude00", "\\udbff\\udfff", "\\uFFFF"),
    hex.map((digits) => `\\u${digits}`),
    hex.map((digits) => `\\u${digits.toUpperCase()}`),
  );
}

function stringOf(piece: fc.Arbitrary<string>): fc.Arbitrary<string> {
  return fc.array(piece, { maxLength: 6 }).map((pieces) => `"${pieces.join("")}"`);
}

function documentOf(string: fc.Arbitrary<string>, number: fc.Arbitrary<string>) {
  const space = fc.constantFrom("", "", "", " ", "\n", "\t", "\r\n", "   ");
  const padded = (text: fc.Arbitrary<string>) =>
    fc.tuple(space, text, space).map((parts) => parts.join(""));
  const { document } = fc.letrec<{ document: string; member: string }>((tie) => ({
    document: padded(
      fc.oneof(
        { maxDepth: 4, withCrossShrink: true },
        fc.oneof(fc.constantFrom("true", "false", "null"), number, string),
        fc.array(tie("document"), { maxLength: 4 }).map((all) => `[${all.join(",")}]`),
        fc.array(tie("member"), { maxLength: 4 }).map((all) => `{${all.join(",")}}`),
        fc.constantFrom("[ ]", "{ }"),
      ),
    ),
    member: fc.tuple(padded(string), tie("document")).map((pair) => pair.join(":")),
  }));
  return document;
}

const sign = fc.constantFrom("", "-");
const exponentMark = fc.constantFrom("e", "E", "e+", "E+", "e-", "E-", "e00", "e-0");

function modestNumber(): fc.Arbitrary<string> {
  const whole = fc.oneof(
    fc.constant("0"),
    digits(1, 25).map((text) => `1${text}`),
  );
  const fraction = fc.oneof(
    fc.constant(""),
    digits(1, 25).map((text) => `.${text}`),
  );
  const exponent = fc.oneof(
    { weight: 2, arbitrary: fc.constant("") },
    fc.tuple(exponentMark, fc.integer({ min: 0, max: 400 })).map((parts) => parts.join("")),
  );
  return fc.tuple(sign, whole, fraction, exponent).map((parts) => parts.join(""));
}

/** Numbers within a few digits of what `numeric` holds, and far outside. */
export function edgyNumber(): fc.Arbitrary<string> {
  const zeros = fc
    .constantFrom(0, 1, 3, 20, 16_380, 16_383, 16_384, 131_073)
    .map((n) => "0".repeat(n));
  const whole = fc.oneof(
    fc.constantFrom("0", "1", "12", "9999", "10000"),
    fc.constantFrom(131_070, 131_071, 131_072).map((length) => `1${"0".repeat(length)}`),
  );
  const fraction = fc.tuple(zeros, fc.constantFrom("", "0", "5", "25", "50"));
  const mantissa = fc
    .tuple(
      whole,
      fc.oneof(
        fc.constant(""),
        fraction.map((parts) => parts.join("")),
      ),
    )
    .map(([before, behind]) => ({ before, behind }));
  const number = mantissa.chain(({ before, behind }) =>
    fc
      .oneof(fc.constant(""), exponentNearTheEdge(before, behind), farExponent)
      .map((exponent) => before + (behind && `.${behind}`) + exponent),
  );
  return fc.tuple(sign, number).map((parts) => parts.join(""));
}

/** Puts the number's first digit near 131,072 places before the point, or its last near 16,383 behind it. */
function exponentNearTheEdge(before: string, behind: string): fc.Arbitrary<string> {
  const leadingZeros = (before + behind).search(/[^0]/);
  const toFirst = 131_072 - (before.length - Math.max(0, leadingZeros));
  const toLast = behind.length - 16_383;
  return fc
    .tuple(fc.constantFrom(toFirst, toLast), fc.integer({ min: -3, max: 3 }))
    .map(([edge, off]) => `e${edge + off}`);
}

// Not 2^30 - 1: there PostgreSQL 15 and 18 differ.
const farExponent = fc
  .tuple(
    exponentMark,
    fc.constantFrom(
      2n ** 30n - 2n,
      2n ** 30n,
      2n ** 31n,
      2n ** 32n,
      2n ** 63n,
      2n ** 64n,
      10n ** 40n,
    ),
    fc.bigInt({ min: 0n, max: 5n }),
  )
  .filter(([, power, off]) => power + off < 2n ** 30n - 1n || power + off >= 2n ** 30n)
  .map(([mark, power, off]) => mark + (power + off));

function digits(minLength: number, maxLength: number): fc.Arbitrary<string> {
  return fc.string({ unit: fc.constantFrom(..."0123456789"), minLength, maxLength });
}
