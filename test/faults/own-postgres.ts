import { randomBytes } from "node:crypto";
import { readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startEmbedded } from "../../src/embedded/embedded-postgres.ts";
import { withClient } from "../../src/postgres/connection.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { createDatabase, databaseUrl } from "../support/database.ts";

/** A PostgreSQL of a test's own, which it may kill, with a database that has the plugin `demo`. */
export interface OwnPostgres extends AsyncDisposable {
  readonly url: string;
  /** kill -9 of the postmaster and all its children, and another start on the same data. */
  killAndStart(): Promise<void>;
}

const quiet = { info() {}, warn() {}, error() {} };

export async function ownPostgres(): Promise<OwnPostgres> {
  const dataDir = join(tmpdir(), `ps-fault-${randomBytes(6).toString("hex")}`);
  const binDir = process.env["PLUGIN_STATE_TEST_PG_BIN_DIR"];
  const start = () => startEmbedded({ dataDir, log: quiet, ...(binDir ? { binDir } : {}) });
  const postgres = await start();
  const { host, port, user } = postgres.connection;
  const server = `postgres://${user}@localhost:${port}/postgres?host=${encodeURIComponent(host)}`;
  const url = databaseUrl(server, "faults");
  await createDatabase(server, "faults", "template0");
  await migrate({ connectionString: url }, "plugin_sidecar");
  await addDemo(url);
  const cluster = await clusterOf(url);
  return {
    url,
    killAndStart: async () => {
      await killServer(cluster);
      // The first one's supervisor would do it too, but waits longer each time.
      const second = await start();
      await second.stop();
    },
    [Symbol.asyncDispose]: async () => {
      await postgres.stop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

async function addDemo(url: string): Promise<void> {
  await withClient({ connectionString: url }, (client) =>
    client.query(
      `insert into plugin_sidecar.plugins (plugin_key, package_name, version, manifest_json)
       values ('demo', 'demo', '1.0.0', '{"capabilities": []}')`,
    ),
  );
}

async function clusterOf(url: string): Promise<string> {
  return await withClient({ connectionString: url }, async (client) => {
    const { rows } = await client.query<{ data_directory: string }>("show data_directory");
    return rows[0]!.data_directory;
  });
}

async function killServer(cluster: string): Promise<void> {
  const lock = await readFile(join(cluster, "postmaster.pid"), "utf8");
  const postmaster = Number.parseInt(lock, 10);
  const children = await childrenOf(postmaster);
  // The postmaster first, or it would notice that its children die, and start them again by itself.
  process.kill(postmaster, "SIGKILL");
  for (const child of children) {
    killIfThere(child);
  }
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // Ended by itself since it was listed.
  }
}

async function childrenOf(parent: number): Promise<number[]> {
  const pids = (await readdir("/proc")).map(Number).filter((pid) => pid > 0);
  const parents = await Promise.all(pids.map(parentOf));
  return pids.filter((_, index) => parents[index] === parent);
}

async function parentOf(pid: number): Promise<number | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  // The name in parentheses may hold anything.
  const [, parent] = /^.*\) . (\d+) /s.exec(stat) ?? [];
  return parent === undefined ? undefined : Number(parent);
}
