// @ts-check
// What a run counted and how long its calls took.

import { createHistogram } from "node:perf_hooks";
import { OK } from "./status.js";

/** Latencies up to a minute, in microseconds, to three figures (an HDR histogram). */
const HISTOGRAM = { lowest: 1, highest: 60_000_000, figures: 3 };

/**
 * What a run came to.
 * @typedef {object} RunResult
 * @property {number} calls answered with status OK and a whole message; nothing else counts
 * @property {number} errors all others, and calls that a fixed rate demanded but that were never sent
 * @property {Record<string, number>} errorCodes how many of each
 * @property {string} errorDetail of the first error that came with one: its grpc-message, percent-encoded
 * @property {number} sampled how many replies were checked to the last byte
 * @property {number} wallSeconds from the first call's start to the last one's end
 * @property {number} callsPerSecond
 * @property {number} p50Us
 * @property {number} p90Us
 * @property {number} p99Us
 * @property {number} maxUs
 */

/** Counts calls by outcome and keeps the latencies of the good ones. */
export class Tally {
  sampled = 0;
  #errorDetail = "";
  #histogram = createHistogram(HISTOGRAM);
  /** @type {Map<string, number>} */
  #errors = new Map();

  /**
   * @param {string} outcome
   * @param {number} latencyMs
   * @param {string} detail
   */
  count(outcome, latencyMs, detail) {
    if (outcome === OK) {
      this.#histogram.record(Math.max(1, Math.round(latencyMs * 1_000)));
      return;
    }
    this.countErrors(outcome, 1);
    if (this.#errorDetail === "") this.#errorDetail = detail;
  }

  /**
   * @param {string} code
   * @param {number} count
   */
  countErrors(code, count) {
    if (count > 0) this.#errors.set(code, (this.#errors.get(code) ?? 0) + count);
  }

  /**
   * Counts an error that may have hit no call: a connection lost while nothing was in flight.
   * @param {string} code
   */
  ensureError(code) {
    if (!this.#errors.has(code)) this.countErrors(code, 1);
  }

  /**
   * @param {number} wallMs
   * @returns {RunResult}
   */
  result(wallMs) {
    const calls = this.#histogram.count;
    const quantile = (/** @type {number} */ percent) =>
      calls === 0 ? 0 : this.#histogram.percentile(percent);
    return {
      calls,
      errors: [...this.#errors.values()].reduce((sum, count) => sum + count, 0),
      errorCodes: Object.fromEntries(this.#errors),
      errorDetail: this.#errorDetail,
      sampled: this.sampled,
      wallSeconds: wallMs / 1_000,
      callsPerSecond: wallMs > 0 ? Math.round((calls / wallMs) * 1_000) : 0,
      p50Us: quantile(50),
      p90Us: quantile(90),
      p99Us: quantile(99),
      maxUs: calls === 0 ? 0 : this.#histogram.max,
    };
  }
}
