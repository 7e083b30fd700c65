import fc from "fast-check";

/** A decimal number: digits, and how many of them are behind the point. */
interface Decimal {
  readonly digits: bigint;
  readonly scale: number;
}

/** Decimals as JSON writes them: large and small, with and without point and exponent. */
export const decimal: fc.Arbitrary<string> = fc
  .record({
    sign: fc.constantFrom("", "-"),
    whole: fc.oneof(fc.constant("0"), fc.bigInt(1n, 10n ** 40n).map(String)),
    fraction: fc.oneof(
      fc.constant(""),
      fc.stringMatching(/^[0-9]{1,30}$/).map((text) => `.${text}`),
    ),
    exponent: fc.oneof(
      { weight: 2, arbitrary: fc.constant("") },
      fc.integer({ min: -200, max: 200 }).map((n) => `e${n}`),
      fc.nat(200).map((n) => `E+${n}`),
    ),
  })
  .map(({ sign, whole, fraction, exponent }) => sign + whole + fraction + exponent);

/** A decimal's value, in one form for each. */
export function decimalOf(text: string): Decimal {
  return reduce(parse(text));
}

/** The value of the sum of two decimals. */
export function sumOf(a: string, b: string): Decimal {
  const [x, y] = [parse(a), parse(b)];
  const scale = Math.max(x.scale, y.scale);
  return reduce({ digits: at(x, scale) + at(y, scale), scale });
}

function parse(text: string): Decimal {
  const [mantissa = "", exponent = "0"] = text.toLowerCase().split("e");
  const [whole = "", fraction = ""] = mantissa.split(".");
  const scale = fraction.length - Number(exponent);
  return { digits: BigInt(whole + fraction), scale };
}

function at({ digits, scale }: Decimal, wanted: number): bigint {
  return digits * 10n ** BigInt(wanted - scale);
}

function reduce({ digits, scale }: Decimal): Decimal {
  if (digits === 0n) {
    return { digits, scale: 0 };
  }
  let reduced = { digits, scale };
  while (reduced.digits % 10n === 0n) {
    reduced = { digits: reduced.digits / 10n, scale: reduced.scale - 1 };
  }
  return reduced;
}

/** The sum as PostgreSQL writes it: with as many digits behind the point as the longer one has. */
export function addDecimals(a: string, b: string): string {
  const [x, y] = [parse(a), parse(b)];
  const scale = Math.max(x.scale, y.scale, 0);
  const sum = at(x, scale) + at(y, scale);
  const digits = String(sum < 0n ? -sum : sum).padStart(scale + 1, "0");
  const whole = digits.slice(0, digits.length - scale);
  const fraction = scale === 0 ? "" : `.${digits.slice(-scale)}`;
  return `${sum < 0n ? "-" : ""}${whole}${fraction}`;
}

/** Below 0, 0 or above it as the first is less than, equal to or more than the second. */
export function compareDecimals(a: string, b: string): number {
  const [x, y] = [parse(a), parse(b)];
  const scale = Math.max(x.scale, y.scale);
  const difference = at(x, scale) - at(y, scale);
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}
