import { randomBytes } from "node:crypto";
import { existsSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { expect, onTestFinished, test } from "vitest";
import { migrationLock } from "../../src/postgres/migrate.ts";
import { testDatabase } from "../support/database.ts";
import { hostTables } from "../support/host-tables.ts";
import { FaultProxy } from "../support/proxy.ts";
import { demoDatabase, everyRound } from "./contract.ts";
import { SidecarProcess } from "./sidecar-process.ts";

/** What a start may take to end: a second or two, and the machine's own time. */
const mostMs = 4_000;

/** A sidecar whose start can't go on, and the moment in which it can't. */
interface Stuck {
  readonly sidecar: SidecarProcess;
  readonly isStuck: () => Promise<void>;
}

/** How a sidecar is started that shall get stuck. */
type Begin = (databaseUrl: string, ...flags: string[]) => SidecarProcess;

async function emptyDatabase() {
  const database = await testDatabase("template0");
  onTestFinished(() => database[Symbol.asyncDispose]());
  return database;
}

/** Another session that has done something, and keeps the locks that it took. */
async function holding(connectionString: string, text: string): Promise<void> {
  const holder = new pg.Client({ connectionString });
  holder.on("error", () => undefined);
  await holder.connect();
  onTestFinished(() => holder.end());
  await holder.query("begin");
  await holder.query(text);
}

/** Until it has a session, whatever it does in it to wait for its turn. */
async function untilConnected(query: (text: string) => Promise<unknown[]>): Promise<void> {
  const sessions = () =>
    query(
      "select from pg_stat_activity where datname = current_database() and application_name = 'plugin-state-sidecar'",
    );
  await expect.poll(async () => (await sessions()).length, { timeout: 20_000 }).toBeGreaterThan(0);
}

async function untilWaiting(query: (text: string) => Promise<unknown[]>): Promise<void> {
  const waiting = () =>
    query(
      "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
    );
  await expect.poll(async () => (await waiting()).length, { timeout: 20_000 }).toBeGreaterThan(0);
}

async function throughProxy() {
  const { url } = await demoDatabase();
  const proxy = await FaultProxy.before(url);
  onTestFinished(() => proxy[Symbol.asyncDispose]());
  return { proxy, url: proxy.through(url) };
}

async function heldAt(begin: Begin, statement: string): Promise<Stuck> {
  const { proxy, url } = await throughProxy();
  let isHeld = false;
  proxy.cutBefore(statement, () => {
    isHeld = true;
  });
  const sidecar = begin(url);
  return { sidecar, isStuck: () => expect.poll(() => isHeld, { timeout: 20_000 }).toBe(true) };
}

const waits: readonly [string, (begin: Begin) => Promise<Stuck>][] = [
  [
    "behind another's migration",
    async (begin) => {
      const { ownerUrl, query } = await emptyDatabase();
      await holding(ownerUrl, `select pg_advisory_lock(${migrationLock})`);
      return { sidecar: begin(ownerUrl), isStuck: () => untilConnected(query) };
    },
  ],
  [
    "behind a host that holds its table",
    async (begin) => {
      const { ownerUrl, query } = await emptyDatabase();
      await query(hostTables);
      await holding(ownerUrl, "lock table plugin_state in access exclusive mode");
      const sidecar = begin(ownerUrl, "--state-schema", "public");
      return { sidecar, isStuck: () => untilWaiting(query) };
    },
  ],
  [
    "for a database that doesn't say a word",
    async (begin) => {
      const { proxy, url } = await throughProxy();
      proxy.silence();
      const connections = () => proxy.connections;
      const isStuck = () => expect.poll(connections, { timeout: 20_000 }).toBeGreaterThan(0);
      return { sidecar: begin(url), isStuck };
    },
  ],
  ["for the plugins", (begin) => heldAt(begin, "find_plugins")],
  ["for the first answer that it serves", (begin) => heldAt(begin, "check_writable")],
  [
    "for a host that hasn't migrated",
    async (begin) => {
      const { ownerUrl } = await emptyDatabase();
      const sidecar = begin(ownerUrl, "--state-schema", "public");
      return { sidecar, isStuck: () => sidecar.logged("waiting for the host") };
    },
  ],
  [
    "for an embedded PostgreSQL that is being made",
    async (begin) => {
      const dataDir = join(tmpdir(), `ps-host-${randomBytes(6).toString("hex")}`);
      onTestFinished(() => rmSync(dataDir, { recursive: true, force: true }));
      const isStuck = () => expect.poll(() => existsSync(dataDir), { interval: 5 }).toBe(true);
      return { sidecar: begin("", "--data-dir", dataDir), isStuck };
    },
  ],
];

test.for(waits)(
  "SIGTERM ends a start that waits %s within seconds, with 0 and no line",
  everyRound,
  async ([, get]) => {
    const begin: Begin = (databaseUrl, ...flags) => new SidecarProcess({ databaseUrl, flags });
    const { sidecar, isStuck } = await get(begin);
    await isStuck();
    const toldAt = performance.now();

    expect(await sidecar.stop()).toEqual({ code: 0, signal: null });

    expect(performance.now() - toldAt).toBeLessThan(mostMs);
    expect(sidecar.stdout).toBe("");
  },
);

test.for(waits)(
  "the end of the parent ends a start that waits %s within seconds",
  everyRound,
  async ([, get]) => {
    const begin: Begin = (databaseUrl, ...flags) =>
      new SidecarProcess({ databaseUrl, flags: [...flags, "--exit-with-parent"] });
    const { sidecar, isStuck } = await get(begin);
    await isStuck();
    const toldAt = performance.now();

    sidecar.child.stdin!.end();

    expect(await sidecar.ended).toEqual({ code: 0, signal: null });
    expect(performance.now() - toldAt).toBeLessThan(mostMs);
  },
);
