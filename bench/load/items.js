// @ts-check
// The entries that a load is about: keys, and values that depend on the key's number and a seed alone.

/** A key and its value. @typedef {{ key: string, valueJson: string }} Item */

/** How many keys have a prefix in common, and `List` lists. */
export const KEYS_PER_PREFIX = 100;

/**
 * @param {number} index
 * @param {number} valueBytes the JSON text's length, about
 * @param {number} seed
 * @returns {Item}
 */
export function itemAt(index, valueBytes, seed) {
  return { key: keyName(index), valueJson: valueJson(index, valueBytes, seed) };
}

/**
 * `item/0012/34`: a hundred keys share a prefix.
 * @param {number} index
 */
function keyName(index) {
  const group = String(Math.floor(index / KEYS_PER_PREFIX)).padStart(4, "0");
  return `item/${group}/${String(index % KEYS_PER_PREFIX).padStart(2, "0")}`;
}

/**
 * A small record as a plugin keeps it, filled up with words to the length.
 * @param {number} index
 * @param {number} bytes
 * @param {number} seed
 */
function valueJson(index, bytes, seed) {
  const random = randomNumbers(seed * 1_000_003 + index);
  const record = {
    id: index,
    state: random() < 0.5 ? "open" : "done",
    weight: random(),
    tags: ["bench", word(random)],
    note: "",
  };
  const missing = bytes - JSON.stringify(record).length;
  while (record.note.length < missing) record.note += `${word(random)} `;
  record.note = record.note.slice(0, Math.max(0, missing));
  return JSON.stringify(record);
}

/** @param {() => number} random */
function word(random) {
  return Math.floor(random() * 36 ** 5).toString(36);
}

/**
 * The numbers from 0 to count - 1 in random order (Fisher and Yates).
 * @param {number} count
 * @param {() => number} random
 */
export function shuffled(count, random) {
  const numbers = Array.from({ length: count }, (_, index) => index);
  for (let left = count; left > 1; left--) {
    const chosen = Math.floor(random() * left);
    [numbers[left - 1], numbers[chosen]] = [numbers[chosen] ?? 0, numbers[left - 1] ?? 0];
  }
  return numbers;
}

/**
 * Repeatable numbers in [0, 1) (mulberry32).
 * @param {number} seed
 * @returns {() => number}
 */
export function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
