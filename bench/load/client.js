// @ts-check
// The load generator: a gRPC client that costs a fraction of the server it measures.

import { Connection } from "./connection.js";
import { Run } from "./run.js";

/** @import { Plan } from "./run.js" */
/** @import { RunResult } from "./tally.js" */

/** Addresses on this machine; load goes nowhere else. */
const LOCAL_ADDRESS = /^(127\.0\.0\.1:\d+|localhost:\d+|unix:.+)$/;

/** Some connections to one server, for one run after the other. Made by `LoadClient.open`. */
export class LoadClient {
  #connections;

  /**
   * Rejects if one of the connections can't be made.
   * @param {object} target
   * @param {string} target.address `127.0.0.1:port` or `unix:/path`
   * @param {number} [target.connections]
   * @param {Record<string, string>} [target.metadata] sent with every call; lower-case names
   * @returns {Promise<LoadClient>}
   */
  static async open({ address, connections = 1, metadata = {} }) {
    if (!LOCAL_ADDRESS.test(address)) throw new Error(`${address} isn't on this machine`);
    /** @type {Connection[]} */
    const opened = [];
    while (opened.length < connections) opened.push(await Connection.open(address, metadata));
    return new LoadClient(opened);
  }

  /** @param {Connection[]} connections */
  constructor(connections) {
    this.#connections = connections;
  }

  /**
   * Sends calls as the plan says and counts how they end. One run at a time. A connection that was
   * lost stays lost: each run after that counts it as an error.
   * @param {Plan} plan
   * @returns {Promise<RunResult>}
   */
  run(plan) {
    return new Run(this.#connections, plan).execute();
  }

  /** Closes the connections. */
  close() {
    for (const connection of this.#connections) connection.close();
  }
}
