// @ts-check
// What is measured: a stock echo, a sidecar, and one PostgreSQL for all.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { Child } from "./load/child.js";
import { generateLoad } from "./load/generator.js";

const startTimeoutMs = 60_000;
const sidecarFile = new URL("../dist/main.js", import.meta.url);

/** @typedef {{ address: string, pid: number }} Address */

/** The servers of one run. */
export class Servers {
  #children;

  /**
   * @param {Child[]} children
   * @param {{ echo: Address, sidecar: Address, postgresPid: number, databaseUrl: string }} places
   */
  constructor(children, { echo, sidecar, postgresPid, databaseUrl }) {
    this.#children = children;
    this.echo = echo;
    this.sidecar = sidecar;
    this.postgresPid = postgresPid;
    this.databaseUrl = databaseUrl;
  }

  /**
   * @param {string} dataDir for the sidecar's embedded PostgreSQL; made here, removed by the caller
   * @param {string[]} [flags] more for `serve`
   */
  static async start(dataDir, flags = []) {
    const echo = new Child(new URL("echo-server.js", import.meta.url));
    const sidecar = new Child(
      sidecarFile,
      ["serve", "--listen", "127.0.0.1:0", "--data-dir", dataDir, "--log-level", "warn", ...flags],
      { DATABASE_URL: "" },
    );
    const ready = /** @type {{ address: string }} */ (await echo.firstLine(startTimeoutMs));
    const line = /** @type {{ bindings?: { address: string }[] }} */ (
      await sidecar.firstLine(startTimeoutMs)
    );
    const address = line.bindings?.[0]?.address;
    if (address === undefined) throw new Error(`the sidecar didn't start: ${JSON.stringify(line)}`);
    const postgres = await readPostmaster(dataDir);
    return new Servers([echo, sidecar], {
      echo: { address: ready.address, pid: echo.pid },
      sidecar: { address, pid: sidecar.pid },
      ...postgres,
    });
  }

  /** Sets every key once. */
  async fill() {
    const { address } = this.sidecar;
    const payloads = { kind: /** @type {const} */ ("pluginstate"), rpcs: { Set: 1 } };
    const result = await generateLoad({
      address,
      payloads,
      inFlight: 64,
      seconds: 120,
      count: 10_000,
    });
    if (result.calls !== 10_000) throw new Error(`filled ${result.calls} of 10000 keys`);
  }

  /** The sidecar's database connections, now. */
  async connections() {
    const client = new pg.Client({ connectionString: this.databaseUrl });
    await client.connect();
    const { rows } = await client.query(
      "select count(*)::int as n from pg_stat_activity where application_name = 'plugin-state-sidecar'",
    );
    await client.end();
    return /** @type {number} */ (rows[0].n);
  }

  async stop() {
    for (const child of this.#children) await child.stop();
  }
}

/** @param {string} dataDir */
async function readPostmaster(dataDir) {
  const text = await readFile(join(dataDir, "pg18", "postmaster.pid"), "utf8");
  const [pid = "", , , port = "", socketDir = ""] = text.split("\n");
  const host = encodeURIComponent(socketDir);
  const databaseUrl = `postgres://plugin_state@localhost:${port}/plugin_state?host=${host}`;
  return { postgresPid: Number(pid), databaseUrl };
}
