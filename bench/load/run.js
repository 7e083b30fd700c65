// @ts-check
// One bounded run of calls over some connections: closed loop, or at a fixed rate.

import { OK } from "./status.js";
import { Tally } from "./tally.js";

/** @import { Connection } from "./connection.js" */
/** @import { Call, Stream } from "./stream.js" */
/** @import { RunResult } from "./tally.js" */

/** How long calls in flight may take after the run's time is over. */
const DRAIN_MS = 5_000;

/** How often a fixed-rate run looks what is due. */
const TICK_MS = 1;

/**
 * What to run. Ends when `seconds` are over or `count` calls were sent, whichever comes first.
 * @typedef {object} Plan
 * @property {Call[]} calls sent in this order, again and again
 * @property {number} inFlight calls at a time, over all connections
 * @property {number} seconds
 * @property {number} [count]
 * @property {number} [rate] calls per second, however slow the replies: a call's latency then counts
 *   from when it was due, also if `inFlight` made it wait. Without it: the next call follows a reply.
 * @property {number} [sampleEvery] every how many calls the reply's message is handed to the call's
 *   `isRight`; a wrong one counts as the error WRONG_REPLY
 */

/** A connection's part in a run. */
class Lane {
  /** When the calls became due that wait for their turn, at a fixed rate. @type {number[]} */
  due = [];
  nextDue = 0;

  /**
   * @param {Connection} connection
   * @param {number} inFlight
   */
  constructor(connection, inFlight) {
    this.connection = connection;
    this.inFlight = inFlight;
  }

  get waiting() {
    return this.due.length - this.nextDue;
  }

  /** When the next call in turn became due, if one did. */
  takeDue() {
    return this.nextDue < this.due.length ? this.due[this.nextDue++] : undefined;
  }
}

/** A run. Use it once. */
export class Run {
  #plan;
  #tally = new Tally();
  /** @type {Map<Connection, Lane>} */
  #lanes = new Map();
  #started = 0;
  #startMs = 0;
  #deadlineMs = 0;
  #limit;
  #scheduled = 0;
  /** @type {ReturnType<typeof setTimeout>[]} */
  #timers = [];
  /** @type {() => void} */
  #finish = () => {};

  /**
   * @param {Connection[]} connections
   * @param {Plan} plan
   */
  constructor(connections, plan) {
    if (plan.inFlight < connections.length) throw new Error("inFlight: below 1 a connection");
    if (plan.calls.length === 0) throw new Error("calls: none");
    this.#plan = plan;
    this.#limit = plan.count ?? Number.POSITIVE_INFINITY;
    connections.forEach((connection, index) => {
      const share = Math.floor((plan.inFlight + index) / connections.length);
      if (share > connection.maxConcurrentCalls) {
        throw new Error(
          `inFlight: ${share} a connection, but the server allows ${connection.maxConcurrentCalls}`,
        );
      }
      this.#lanes.set(connection, new Lane(connection, share));
    });
  }

  /**
   * Runs to the end. Never rejects because of the server: what it does wrong is counted.
   * @returns {Promise<RunResult>}
   */
  async execute() {
    this.#startMs = performance.now();
    this.#deadlineMs = this.#startMs + this.#plan.seconds * 1_000;
    const finished = new Promise((resolve) => {
      this.#finish = () => resolve(undefined);
    });
    for (const { connection } of this.#lanes.values()) connection.listener = this;
    this.#startTimers();
    this.#fillAll();
    await finished;
    const endMs = performance.now();
    this.#stop();
    return this.#tally.result(endMs - this.#startMs);
  }

  /**
   * @param {Stream} stream
   * @param {string} outcome
   * @param {number} nowMs
   */
  onReply(stream, outcome, nowMs) {
    const isWrong = outcome === OK && stream.parts !== undefined && !this.#isRight(stream);
    this.#tally.count(isWrong ? "WRONG_REPLY" : outcome, nowMs - stream.startMs, stream.detail);
  }

  /**
   * @param {Connection} connection
   * @param {number} nowMs
   */
  onTurn(connection, nowMs) {
    const lane = this.#lanes.get(connection);
    if (lane !== undefined) this.#fill(lane, nowMs);
    if (connection.inFlight === 0) this.#finishIfOver(nowMs);
  }

  /** @param {Stream} stream */
  #isRight(stream) {
    this.#tally.sampled += 1;
    try {
      return stream.call.isRight?.(stream.message()) ?? true;
    } catch {
      return false; // it couldn't even be decoded
    }
  }

  #startTimers() {
    const limitMs = this.#plan.seconds * 1_000 + DRAIN_MS;
    this.#timers.push(setTimeout(() => this.#giveUp(), limitMs));
    if (this.#plan.rate !== undefined) {
      this.#timers.push(setInterval(() => this.#fillAll(), TICK_MS));
    }
  }

  #fillAll() {
    const nowMs = performance.now();
    if (this.#plan.rate !== undefined) this.#schedule(this.#plan.rate, nowMs);
    for (const lane of this.#lanes.values()) {
      this.#fill(lane, nowMs);
      lane.connection.flush();
    }
    this.#finishIfOver(nowMs);
  }

  /**
   * Hands the calls that have become due since the last tick to the lanes in turn. What becomes due
   * after the last tick is never demanded.
   * @param {number} rate
   * @param {number} nowMs
   */
  #schedule(rate, nowMs) {
    if (nowMs >= this.#deadlineMs) return;
    const due = Math.min(this.#limit, Math.floor(((nowMs - this.#startMs) * rate) / 1_000));
    const lanes = [...this.#lanes.values()];
    for (; this.#scheduled < due; this.#scheduled++) {
      lanes[this.#scheduled % lanes.length]?.due.push(nowMs);
    }
  }

  /**
   * Starts as many calls on a lane as it may have in flight.
   * @param {Lane} lane
   * @param {number} nowMs
   */
  #fill(lane, nowMs) {
    const { connection } = lane;
    const { calls, rate, sampleEvery } = this.#plan;
    if (connection.failure !== undefined) return;
    while (connection.inFlight < lane.inFlight && this.#mayStart(nowMs)) {
      const startMs = rate === undefined ? nowMs : lane.takeDue();
      if (startMs === undefined) return;
      const call = calls[this.#started++ % calls.length];
      if (call === undefined) return; // never: the index is below the length
      const keepsReply = sampleEvery !== undefined && this.#started % sampleEvery === 0;
      connection.send(call, startMs, keepsReply);
    }
  }

  /** @param {number} nowMs */
  #mayStart(nowMs) {
    return nowMs < this.#deadlineMs && this.#started < this.#limit;
  }

  /** @param {number} nowMs */
  #finishIfOver(nowMs) {
    const lanes = [...this.#lanes.values()];
    const isIdle = lanes.every((lane) => lane.connection.inFlight === 0);
    const isLost = lanes.every((lane) => lane.connection.failure !== undefined);
    if (isIdle && (isLost || !this.#mayStart(nowMs))) this.#finish();
  }

  /** The server didn't answer in time: its connections are of no more use. */
  #giveUp() {
    for (const { connection } of this.#lanes.values()) {
      if (connection.inFlight > 0) connection.fail("UNANSWERED");
    }
    this.#finish();
  }

  /** Leaves nothing behind, and counts what was never sent. */
  #stop() {
    for (const timer of this.#timers) clearTimeout(timer);
    for (const lane of this.#lanes.values()) {
      lane.connection.listener = undefined;
      this.#tally.countErrors("NOT_SENT", lane.waiting);
      if (lane.connection.failure !== undefined) {
        this.#tally.ensureError(lane.connection.failure);
      }
    }
  }
}
