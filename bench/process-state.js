// @ts-check
// What a process holds, from Linux's /proc.

import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const samples = 10;
const betweenSamplesMs = 200;

/** Memory of a process that is resident now, in MiB. @param {number} pid */
export function residentMiB(pid) {
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(kib) / 1024;
}

/** Open descriptors of a process. @param {number} pid */
export function descriptors(pid) {
  return readdirSync(`/proc/${pid}/fd`).length;
}

/** The least that a process has while it has nothing to do, in 2 seconds. @param {number} pid */
export async function idleMiB(pid) {
  let least = Number.POSITIVE_INFINITY;
  for (let n = 0; n < samples; n++) {
    await sleep(betweenSamplesMs);
    least = Math.min(least, residentMiB(pid));
  }
  return least;
}

/** @param {number[]} values */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/**
 * A row of a report, and whether its bar is reached.
 * @param {string} name
 * @param {string} figure
 * @param {string} bar
 * @param {boolean} isReached
 */
export function barRow(name, figure, bar, isReached) {
  return { text: `| ${name} | ${figure} | ${bar} | ${isReached ? "yes" : "NO"} |`, isReached };
}

/**
 * Prints rows as a table; the process exits with 1 if one isn't reached.
 * @param {ReturnType<typeof barRow>[]} rows
 */
export function printBars(rows) {
  const head = ["| measure | figure | bar | reached |", "|---|---|---|---|"];
  process.stdout.write(`${[...head, ...rows.map(({ text }) => text)].join("\n")}\n`);
  if (rows.some(({ isReached }) => !isReached)) process.exitCode = 1;
}
