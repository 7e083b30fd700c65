// @ts-check
// What is measured: a stock echo, sidecars, and one PostgreSQL for all.

import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import pg from "pg";
import { fill } from "./fill.js";
import { Child } from "./load/child.js";
import { PLACE } from "./load/payloads.js";
import { SQL_PLACE } from "./sql-place.js";

const startTimeoutMs = 60_000;
const sidecarFile = new URL("../dist/main.js", import.meta.url);
const run = promisify(execFile);

/** The entries of a database, and of the large one. */
export const ENTRIES = { usual: 10_000, many: 1_000_000 };

/** @typedef {{ address: string, pid: number }} Server */
/** @typedef {Server & { pluginId: string }} Sidecar */

/** Which sidecars a run needs beside the usual one. @typedef {"uncoalesced" | "many"} Extra */

/** The servers of one run. `start` makes them, and `stop` may be called at any time. */
export class Servers {
  /** @type {Child[]} */
  #children = [];
  /** @type {pg.Client[]} */
  #clients = [];
  /** @type {pg.Client | undefined} */
  #admin;
  /** @type {Promise<void> | undefined} */
  #stopping;
  #dataDir;

  /** @type {Server | undefined} */
  echo;
  /** By name: "usual", on 10,000 entries, and the extras. @type {Map<"usual" | Extra, Sidecar>} */
  sidecars = new Map();
  postgresPid = 0;
  postgresVersion = "";
  databaseUrl = "";
  /** The most database connections that one sidecar had when somebody looked. */
  mostConnections = 0;

  /** @param {string} dataDir for the embedded PostgreSQL; made here, removed by the caller */
  constructor(dataDir) {
    this.#dataDir = dataDir;
  }

  /** @param {Set<Extra>} extras */
  async start(extras) {
    const echo = new Child(new URL("echo-server.js", import.meta.url));
    this.#children.push(echo);
    const ready = /** @type {{ address: string }} */ (await echo.firstLine(startTimeoutMs));
    this.echo = { address: ready.address, pid: echo.pid };
    const usual = await this.#startSidecar("usual", ["--data-dir", this.#dataDir]);
    Object.assign(this, await readPostmaster(this.#dataDir));
    this.#admin = await this.#connect(this.databaseUrl);
    const { rows } = await this.#admin.query("show server_version");
    this.postgresVersion = rows[0].server_version;
    await fill(this.#admin, usual.pluginId, PLACE, ENTRIES.usual);
    await fill(this.#admin, usual.pluginId, SQL_PLACE, ENTRIES.usual);
    if (extras.has("many")) await this.#startMany(this.#admin);
    if (extras.has("uncoalesced")) {
      const url = named(this.databaseUrl, "uncoalesced");
      const flags = ["--database-url", url, "--plugin", "demo", "--no-coalescing"];
      await this.#startSidecar("uncoalesced", flags);
    }
    // What was filled isn't written out while something is measured.
    await this.#admin.query("checkpoint");
  }

  /**
   * Looks how many connections each sidecar has, and returns the most. They are kept for 30 s after use:
   * once a measure is enough.
   */
  async countConnections() {
    const { rows } = await this.#required.query(`
      select count(*)::int as n from pg_stat_activity
       where application_name like 'plugin-state-sidecar%' group by application_name, datname`);
    const most = Math.max(0, ...rows.map(({ n }) => n));
    this.mostConnections = Math.max(this.mostConnections, most);
    return most;
  }

  /**
   * Does `work` while every commit waits 2 ms before its WAL is flushed, as on a slower disk.
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  async withCommitDelay(work) {
    await this.#required.query("alter system set commit_siblings = 0");
    await this.#setCommitDelay("alter system set commit_delay = 2000", "2000");
    try {
      return await work();
    } finally {
      await this.#required.query("alter system reset commit_siblings");
      await this.#setCommitDelay("alter system reset commit_delay", "0");
    }
  }

  /** May be called twice, and while something is measured: that fails then. */
  stop() {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop() {
    for (const client of this.#clients) await client.end();
    // The embedded PostgreSQL ends with the first sidecar.
    for (const child of this.#children.reverse()) await child.stop();
  }

  get #required() {
    if (this.#admin === undefined) throw new Error("not started");
    return this.#admin;
  }

  /** @param {string} statement @param {string} expected */
  async #setCommitDelay(statement, expected) {
    await this.#required.query(statement);
    await this.#required.query("select pg_reload_conf()");
    for (let tries = 0; tries < 100; tries++) {
      const { rows } = await this.#required.query("show commit_delay");
      if (rows[0].commit_delay === expected) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(`commit_delay doesn't become ${expected}`);
  }

  /** A database of its own, so that the usual one stays as small as it is. @param {pg.Client} admin */
  async #startMany(admin) {
    await admin.query("create database many");
    const url = this.databaseUrl.replace("/plugin_state?", "/many?");
    const main = fileURLToPath(sidecarFile);
    await run(process.execPath, [main, "migrate", "--database-url", url]);
    const add = [main, "plugin", "add", "bench", "--database-url", url];
    const added = await run(process.execPath, add);
    process.stderr.write(`filling a database with ${ENTRIES.many} entries\n`);
    await fill(await this.#connect(url), added.stdout.trim(), PLACE, ENTRIES.many);
    await this.#startSidecar("many", ["--database-url", url, "--plugin", "bench"]);
  }

  /** @param {"usual" | Extra} name @param {string[]} flags */
  async #startSidecar(name, flags) {
    const common = ["--listen", "127.0.0.1:0", "--log-level", "warn", "--exit-with-parent"];
    const child = new Child(sidecarFile, ["serve", ...common, ...flags], { DATABASE_URL: "" });
    this.#children.push(child);
    const line = /** @type {{ bindings?: { address: string, pluginId: string }[] }} */ (
      await child.firstLine(startTimeoutMs)
    );
    const binding = line.bindings?.[0];
    if (binding === undefined) throw new Error(`the sidecar didn't start: ${JSON.stringify(line)}`);
    const sidecar = { address: binding.address, pluginId: binding.pluginId, pid: child.pid };
    this.sidecars.set(name, sidecar);
    return sidecar;
  }

  /** @param {string} connectionString */
  async #connect(connectionString) {
    // Not numbered by the sidecar's trigger.
    const options = "-c plugin_sidecar.writer=sidecar";
    const client = new pg.Client({ connectionString, options, application_name: "bench" });
    this.#clients.push(client);
    await client.connect();
    return client;
  }
}

/** Names the connections, so that they are counted apart. @param {string} url @param {string} suffix */
function named(url, suffix) {
  return `${url}&application_name=plugin-state-sidecar-${suffix}`;
}

/** @param {string} dataDir */
async function readPostmaster(dataDir) {
  const text = await readFile(join(dataDir, "pg18", "postmaster.pid"), "utf8");
  const [pid = "", , , port = "", socketDir = ""] = text.split("\n");
  const host = encodeURIComponent(socketDir);
  const databaseUrl = `postgres://plugin_state@localhost:${port}/plugin_state?host=${host}`;
  return { postgresPid: Number(pid), databaseUrl };
}
