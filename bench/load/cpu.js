// @ts-check
// CPU time of other processes, from Linux's /proc, and of the whole machine.

import { readdirSync, readFileSync } from "node:fs";
import { cpus } from "node:os";

/** Linux counts CPU time in hundredths of a second for user space, whatever its own clock. */
const TICKS_PER_SECOND = 100;

/**
 * A process as /proc/<pid>/stat has it.
 * @typedef {object} ProcessStat
 * @property {number} parent
 * @property {number} seconds CPU, user and system, all threads
 * @property {number} childSeconds the same of its children that have ended
 */

/**
 * CPU seconds that a process has used, or undefined if it can't be known (it is gone; not Linux).
 * @param {number} pid
 */
export function cpuSecondsOf(pid) {
  return processStat(pid)?.seconds;
}

/**
 * CPU seconds that a process and all its descendants have used, ended ones included: PostgreSQL with
 * its backends.
 * @param {number} pid
 */
export function cpuSecondsOfTree(pid) {
  const all = new Map(processIds().map((id) => [id, processStat(id)]));
  const root = all.get(pid);
  if (root === undefined) return undefined;
  let seconds = 0;
  for (const [id, stat] of all) {
    if (stat !== undefined && isWithin(id, pid, all)) seconds += stat.seconds + stat.childSeconds;
  }
  return seconds;
}

/** CPU seconds that all processes of the machine have used, except waiting. */
export function machineCpuSeconds() {
  let ms = 0;
  for (const { times } of cpus()) ms += times.user + times.nice + times.sys + times.irq;
  return ms / 1_000;
}

/** @returns {number[]} */
function processIds() {
  try {
    return readdirSync("/proc").map(Number).filter(Number.isInteger);
  } catch {
    return [];
  }
}

/**
 * @param {number} pid
 * @returns {ProcessStat | undefined}
 */
function processStat(pid) {
  let text;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return undefined;
  }
  // The second field is the program's name in brackets and may hold anything, also brackets.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const field = (/** @type {number} */ number) => Number(fields[number - 3]);
  return {
    parent: field(4),
    seconds: (field(14) + field(15)) / TICKS_PER_SECOND,
    childSeconds: (field(16) + field(17)) / TICKS_PER_SECOND,
  };
}

/**
 * @param {number} pid
 * @param {number} ancestor
 * @param {Map<number, ProcessStat | undefined>} all
 */
function isWithin(pid, ancestor, all) {
  for (let id = pid; id > 0; id = all.get(id)?.parent ?? 0) {
    if (id === ancestor) return true;
  }
  return false;
}
