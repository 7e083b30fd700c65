/** Why a text can't be kept as jsonb, and where. */
export interface JsonFault {
  /**
   * - `syntax`: not JSON (RFC 8259).
   * - `nul`: a string or key with the escape of U+0000 (PostgreSQL: 22P05).
   * - `surrogate`: half of a surrogate pair, escaped (22P02) or raw (pg would send U+FFFD for it).
   * - `number`: more digits than `numeric` holds (22003), or than the caller wants written out.
   * - `depth`: nested deeper than the caller wants (PostgreSQL, much deeper: 54001).
   */
  readonly kind: "syntax" | "nul" | "surrogate" | "number" | "depth";
  /** Where the fault begins, in UTF-16 code units; the text's length where something is missing. */
  readonly offset: number;
  /** A sentence for a person. Nothing of the text stands in it. */
  readonly message: string;
}

/**
 * How many characters writing numbers out may add to a text, unless the caller says less.
 *
 * jsonb keeps `1e131071` in 22 bytes and reads it back as 131,072 digits: 45 kB of such numbers are
 * stored without complaint, and reading them ends the process. Past 2^29 - 24 code units pg throws
 * ERR_STRING_TOO_LONG where nobody can catch it; past 1 GiB PostgreSQL itself can't (54000). Half
 * of 2^29 leaves room for the text and for the space that jsonb puts behind commas and colons,
 * which is at most half of the text again.
 */
export const maxReadableAddedChars = 2 ** 28;

/** What `numeric` holds: before the point 32,768 groups of four, behind it a scale of 14 bits. */
const maxWholeDigits = 131_072;
const maxFractionDigits = 16_383;
/** Refused even for a zero. PostgreSQL 15's limit; 18 takes this one and refuses the next. */
const exponentLimit = 2 ** 30 - 1;

/**
 * What stands for itself in a string. A regular expression takes 22 ns to begin and 0.9 ns a
 * character, charCodeAt 2 ns a character (Node 20; bench/json-text.js). Taking the first 8 or 16
 * with the latter made a typical document 10 % slower. One class, without alternatives: with them
 * V8 runs out of stack in a string of 32 million pairs.
 */
const plainChars = /[ !#-[\]-\ud7ff\ue000-\uffff]*/y;

const space = 0x20;
const quote = 0x22;
const plus = 0x2b;
const comma = 0x2c;
const minus = 0x2d;
const point = 0x2e;
const zero = 0x30;
const nine = 0x39;
const colon = 0x3a;
const upperE = 0x45;
const openBracket = 0x5b;
const backslash = 0x5c;
const lowerA = 0x61;
const lowerE = 0x65;
const lowerF = 0x66;
const lowerN = 0x6e;
const lowerT = 0x74;
const lowerU = 0x75;
const openBrace = 0x7b;
const closeBrace = 0x7d;

/** Scratch of the one scan under way: a scan never waits, so no two overlap. */
const scan = {
  /** The bracket or brace that closes each level; nothing closes level 0. */
  closers: new Uint8Array(1024),
  /** How many characters writing numbers out may still add. */
  spareChars: 0,
};

/**
 * Finds the first reason why a text can't be kept exactly as jsonb; undefined if there is none.
 *
 * Accepts what JSON.parse accepts, less what PostgreSQL 15 or 18 refuses in a database of encoding
 * UTF8 and what can't be read back (see {@link JsonFault}). A number is kept exactly, not its
 * notation: `1e2` is read back as `100`, `-0` as `0`. One pass, without recursion; it allocates
 * nothing without a fault, and takes about as long as JSON.parse (bench/json-text.js).
 *
 * @param maxDepth how deep arrays and objects may be nested: 1 allows `[]`, 2 allows `[{}]`.
 *   PostgreSQL 15 takes 13,000 levels and 18 takes 16,200 with `max_stack_depth` at 2 MB, its
 *   default; 579 and 703 at 100 kB, its least.
 * @param maxAddedChars how many characters numbers may add when they are written without exponents.
 */
export function findJsonFault(
  text: string,
  maxDepth: number,
  maxAddedChars: number = maxReadableAddedChars,
): JsonFault | undefined {
  scan.spareChars = maxAddedChars;
  let depth = 0;
  let closer = 0;
  let at = endOfSpace(text, 0);
  for (;;) {
    // In an object a key; then a scalar, or what opens an array or object.
    if (closer === closeBrace) {
      const key = at;
      if (text.charCodeAt(key) !== quote) return syntaxFault(text, key);
      at = endOfKey(text, key);
      if (at < 0) return faultAt(text, key, ~at);
    }
    const first = text.charCodeAt(at);
    if (first === openBracket || first === openBrace) {
      if (depth === maxDepth) return depthFault(at);
      closer = first + 2; // so it is in ASCII, for brackets and braces alike
      pushCloser(++depth, closer);
      at = endOfSpace(text, at + 1);
      if (text.charCodeAt(at) !== closer) continue;
    } else {
      const end = endOfScalar(text, at, first);
      if (end < 0) return faultAt(text, at, ~end);
      at = endOfSpace(text, end);
    }
    // All that closes here; then a comma, or the end.
    while (depth > 0 && text.charCodeAt(at) === closer) {
      closer = scan.closers[--depth] ?? 0;
      at = endOfSpace(text, at + 1);
    }
    if (depth === 0) return at === text.length ? undefined : syntaxFault(text, at);
    if (text.charCodeAt(at) !== comma) return syntaxFault(text, at);
    at = endOfSpace(text, at + 1);
  }
}

function pushCloser(depth: number, closer: number): void {
  if (depth === scan.closers.length) {
    const longer = new Uint8Array(2 * depth);
    longer.set(scan.closers);
    scan.closers = longer;
  }
  scan.closers[depth] = closer;
}

// Each endOf… returns the offset behind what it reads or, below zero, ~offset of the fault it met.

function endOfSpace(text: string, start: number): number {
  let at = start;
  while (at < text.length && isSpace(text.charCodeAt(at))) at++;
  return at;
}

function isSpace(unit: number): boolean {
  return unit <= space && (unit === space || unit === 0x0a || unit === 0x0d || unit === 0x09);
}

/** A key, its colon, and the space behind that. */
function endOfKey(text: string, start: number): number {
  const end = endOfString(text, start);
  if (end < 0) return end;
  const at = endOfSpace(text, end);
  return text.charCodeAt(at) === colon ? endOfSpace(text, at + 1) : ~at;
}

function endOfScalar(text: string, start: number, first: number): number {
  switch (first) {
    case quote:
      return endOfString(text, start);
    case lowerT:
      return endOfWord(text, start, "true");
    case lowerF:
      return endOfWord(text, start, "false");
    case lowerN:
      return endOfWord(text, start, "null");
    default:
      return endOfNumber(text, start);
  }
}

function endOfWord(text: string, start: number, word: string): number {
  return text.startsWith(word, start) ? start + word.length : ~start;
}

function endOfString(text: string, start: number): number {
  let at = start + 1;
  for (;;) {
    plainChars.lastIndex = at;
    plainChars.test(text);
    at = plainChars.lastIndex;
    if (at === text.length) return ~at;
    if (text.charCodeAt(at) === quote) return at + 1;
    at = endOfSpecialChars(text, at);
    if (at < 0) return at;
  }
}

/** Escapes and raw surrogate pairs, all that follow each other: of a fault the first. */
function endOfSpecialChars(text: string, start: number): number {
  let at = start;
  do {
    at = text.charCodeAt(at) === backslash ? endOfEscape(text, at) : endOfRawPair(text, at);
  } while (at > 0 && isSpecial(text.charCodeAt(at)));
  return at;
}

function isSpecial(unit: number): boolean {
  return unit === backslash || (unit & 0xf800) === 0xd800;
}

/** An escape, or the two of a surrogate pair. */
function endOfEscape(text: string, start: number): number {
  if (text.charCodeAt(start + 1) !== lowerU) {
    return isShortEscape(text.charCodeAt(start + 1)) ? start + 2 : ~start;
  }
  const unit = escapedUnit(text, start);
  if (isHighSurrogate(unit)) {
    return isLowSurrogate(escapedUnit(text, start + 6)) ? start + 12 : ~start;
  }
  return unit <= 0 || isLowSurrogate(unit) ? ~start : start + 6;
}

function endOfRawPair(text: string, start: number): number {
  const isPair =
    isHighSurrogate(text.charCodeAt(start)) && isLowSurrogate(text.charCodeAt(start + 1));
  return isPair ? start + 2 : ~start;
}

function isShortEscape(unit: number): boolean {
  switch (unit) {
    case quote:
    case backslash:
    case 0x2f: // slash
    case 0x62: // b
    case lowerF:
    case lowerN:
    case 0x72: // r
    case lowerT:
      return true;
    default:
      return false;
  }
}

function isHighSurrogate(unit: number): boolean {
  return (unit & 0xfc00) === 0xd800;
}

function isLowSurrogate(unit: number): boolean {
  return (unit & 0xfc00) === 0xdc00;
}

/** The code unit that the escape at `start` stands for; -1 unless that is a `\uXXXX`. */
function escapedUnit(text: string, start: number): number {
  if (text.charCodeAt(start) !== backslash || text.charCodeAt(start + 1) !== lowerU) return -1;
  let unit = 0;
  for (let at = start + 2; at < start + 6; at++) {
    const digit = hexDigit(text.charCodeAt(at));
    if (digit < 0) return -1;
    unit = unit * 16 + digit;
  }
  return unit;
}

function hexDigit(unit: number): number {
  if (isDigit(unit)) return unit - zero;
  const lower = unit | 0x20;
  return lower >= lowerA && lower <= lowerF ? lower - lowerA + 10 : -1;
}

function isDigit(unit: number): boolean {
  return unit >= zero && unit <= nine;
}

/** A number. Its fault is at its start if `numeric` can't hold it, and behind if it isn't JSON. */
function endOfNumber(text: string, start: number): number {
  const whole = startOfDigits(text, start);
  const wholeEnd = text.charCodeAt(whole) === zero ? whole + 1 : endOfDigits(text, whole);
  if (wholeEnd === whole) return ~whole;
  let end = wholeEnd;
  let next = text.charCodeAt(end);
  if (next === point) {
    end = endOfDigits(text, wholeEnd + 1);
    if (end === wholeEnd + 1) return ~end;
    next = text.charCodeAt(end);
  }
  if (next === lowerE || next === upperE) return endOfExponent(text, start, wholeEnd, end);
  const isHeld = wholeEnd - whole <= maxWholeDigits && end - wholeEnd <= maxFractionDigits + 1;
  return isHeld ? end : ~start;
}

/** The exponent, its "e" at `mark`, of a number at `start` whose whole part ends at `wholeEnd`. */
function endOfExponent(text: string, start: number, wholeEnd: number, mark: number): number {
  const sign = text.charCodeAt(mark + 1);
  const digits = sign === plus || sign === minus ? mark + 2 : mark + 1;
  const end = endOfDigits(text, digits);
  if (end === digits) return ~end;
  const size = readSize(text, digits, end);
  const exponent = sign === minus ? -size : size;

  const whole = startOfDigits(text, start);
  const wholeDigits = wholeEnd - whole + exponent - leadingZeros(text, whole);
  const fractionDigits = Math.max(0, mark - wholeEnd - 1) - exponent;
  const isHeld = wholeDigits <= maxWholeDigits && fractionDigits <= maxFractionDigits;
  if (!isHeld || size === exponentLimit) return ~start;

  const fractionChars = fractionDigits > 0 ? 1 + fractionDigits : 0;
  const writtenChars = Math.max(1, wholeDigits) + fractionChars;
  scan.spareChars -= Math.max(0, writtenChars - (end - whole));
  return scan.spareChars < 0 ? ~start : end;
}

function startOfDigits(text: string, start: number): number {
  return text.charCodeAt(start) === minus ? start + 1 : start;
}

function endOfDigits(text: string, start: number): number {
  let at = start;
  while (at < text.length && isDigit(text.charCodeAt(at))) at++;
  return at;
}

/** The digits of an exponent as a number, at most the limit. */
function readSize(text: string, start: number, end: number): number {
  let size = 0;
  for (let at = start; at < end; at++) {
    size = Math.min(size * 10 + text.charCodeAt(at) - zero, exponentLimit);
  }
  return size;
}

/** The zeros before the first other digit, wherever the point is; Infinity if there is no other. */
function leadingZeros(text: string, start: number): number {
  let zeros = 0;
  for (let at = start; ; at++) {
    const unit = text.charCodeAt(at);
    if (unit === zero) zeros++;
    else if (unit !== point) return isDigit(unit) ? zeros : Number.POSITIVE_INFINITY;
  }
}

// What follows runs only when there is a fault, and looks once more at where the scan stopped.

/** The fault at `offset` of the key or scalar that begins at `start`. */
function faultAt(text: string, start: number, offset: number): JsonFault {
  const first = text.charCodeAt(start);
  if (first === quote && endOfString(text, start) === ~offset) return stringFault(text, offset);
  if (offset === start && (first === minus || isDigit(first))) return numberFault(offset);
  return syntaxFault(text, offset);
}

function stringFault(text: string, offset: number): JsonFault {
  const unit = text.charCodeAt(offset);
  const escaped = unit === backslash ? escapedUnit(text, offset) : unit;
  if (escaped === 0 && unit === backslash) {
    return { kind: "nul", offset, message: "A string contains the escape of the character NUL." };
  }
  if (isHighSurrogate(escaped) || isLowSurrogate(escaped)) {
    const message = "A string contains a surrogate without its other half in the same notation.";
    return { kind: "surrogate", offset, message };
  }
  return syntaxFault(text, offset);
}

function numberFault(offset: number): JsonFault {
  const message =
    scan.spareChars < 0
      ? "The numbers up to this one are too long when written without exponents."
      : "A number has more than 131,072 digits before the point or 16,383 behind it.";
  return { kind: "number", offset, message };
}

function depthFault(offset: number): JsonFault {
  return { kind: "depth", offset, message: "Arrays and objects are nested too deeply." };
}

function syntaxFault(text: string, offset: number): JsonFault {
  const message =
    offset < text.length
      ? "The text is not JSON from here on."
      : "The text ends before its JSON value does.";
  return { kind: "syntax", offset, message };
}
