// What findJsonFault costs beside JSON.parse: npm run build && node bench/json-text.js
// Each line: both in the same run, the best of nine rounds, and the ratio.
import { findJsonFault } from "../dist/state/json-text.js";

const maxDepth = 1000;
const largeChars = 4 * 1024 * 1024;
const typical = {
  id: "b7f2c1d4-8a3e-4f5b-9c6d-1e2f3a4b5c6d",
  status: "running",
  attempts: 3,
  lastError: null,
  updatedAt: "2026-01-15T10:23:45.678Z",
  tags: ["alpha", "beta"],
  cursor: { page: 12, offset: 2400, done: false },
  ratio: 0.875,
};
const typicalText = JSON.stringify(typical);

const texts = {
  typical: typicalText,
  "typical, CJK": JSON.stringify({ ...typical, status: "実行中" }),
  "typical, indented": JSON.stringify(typical, null, 2),
  "4 MiB of typical": largeArray(typicalText),
  "4 MiB of 1-digit integers": largeArray("1"),
  "4 MiB of 5-digit integers": largeArray("12345"),
  "4 MiB of exponents": largeArray("1.2345678901234567e-8"),
  "4 MiB of short strings": largeArray('"ab"'),
  "4 MiB of []": largeArray("[]"),
  "4 MiB of spaces": `${" ".repeat(largeChars - 1)}1`,
  "a 4 MiB string": largeString("Hello, world. "),
  "a 4 MiB string of CJK": largeString("漢字"),
  "a 4 MiB string of emoji": largeString("😀"),
  "a 4 MiB string of \\n": largeString("\\n"),
  "a 4 MiB string of x\\n": largeString("x\\n"),
  "a 4 MiB string of \\u6f22": largeString("\\u6f22"),
};

function largeArray(item) {
  const count = Math.floor((largeChars - 1) / (item.length + 1));
  return `[${Array(count).fill(item).join()}]`;
}

function largeString(piece) {
  return `"${piece.repeat((largeChars - 2) / piece.length)}"`;
}

/** The string as gRPC's decoder makes it: flat, and of one byte a character where that suffices. */
function flat(text) {
  return Buffer.from(text).toString();
}

function bestNs(run) {
  let repeats = 1;
  while (elapsedNs(run, repeats) < 20e6) repeats *= 2; // warm by then, too
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 9; round++) best = Math.min(best, elapsedNs(run, repeats) / repeats);
  return best;
}

function elapsedNs(run, repeats) {
  const start = process.hrtime.bigint();
  for (let i = 0; i < repeats; i++) run();
  return Number(process.hrtime.bigint() - start);
}

function shown(ns) {
  return (ns < 1e5 ? `${ns.toFixed(0)} ns` : `${(ns / 1e6).toFixed(1)} ms`).padStart(9);
}

console.log(
  `Node ${process.version}`.padEnd(36),
  "find fault".padStart(10),
  "JSON.parse".padStart(11),
);
for (const [name, text] of Object.entries(texts)) {
  const value = flat(text);
  if (findJsonFault(value, maxDepth) !== undefined) throw new Error(`${name} has a fault`);
  const find = bestNs(() => findJsonFault(value, maxDepth));
  const parse = bestNs(() => JSON.parse(value));
  const chars = `${value.length} chars`.padStart(14);
  console.log(
    `${name.padEnd(26)}${chars} ${shown(find)}   ${shown(parse)}  ${(find / parse).toFixed(2)}`,
  );
}

// Two ways through a string's plain characters: why findJsonFault takes the first.
const pattern = /[ !#-[\]-\ud7ff\ue000-\uffff]*/y;
function endByPattern(text) {
  pattern.lastIndex = 1;
  pattern.test(text);
  return pattern.lastIndex;
}

function endByUnit(text) {
  let at = 1;
  while (at < text.length && isPlain(text.charCodeAt(at))) at++;
  return at;
}

function isPlain(unit) {
  return unit > 0x5c
    ? unit < 0xd800 || unit > 0xdfff
    : unit >= 0x20 && unit !== 0x22 && unit !== 0x5c;
}

console.log("\nA string of".padEnd(41), "pattern", "  unit by unit");
for (const length of [4, 12, 40, 200, 100_000]) {
  const text = flat(`"${"x".repeat(length)}"`);
  const byPattern = bestNs(() => endByPattern(text));
  const byUnit = bestNs(() => endByUnit(text));
  console.log(
    `${`${length} chars`.padStart(14).padEnd(40)} ${shown(byPattern)}   ${shown(byUnit)}`,
  );
}
