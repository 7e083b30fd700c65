import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { appendFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";
import pg from "pg";
import { chooseAccount, type RunAs } from "../../src/embedded/account.ts";
import { type Binaries, prepareBinaries } from "../../src/embedded/binaries.ts";
import { clusterUser, ensureCluster } from "../../src/embedded/cluster.ts";
import { clusterPath, makeDataDir } from "../../src/embedded/data-dir.ts";
import { identity } from "../../src/embedded/run.ts";
import { makeSocketDir } from "../../src/embedded/socket-dir.ts";
import { grantStatements, servingGrants } from "../../src/postgres/grants.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { createDatabase, databaseUrl } from "../support/database.ts";

const quiet = { info() {}, warn() {}, error() {} };
const databaseName = "state";
/** The role that a sidecar uses the database with: no superuser, nor the tables' owner. */
export const sidecarRole = "sidecar";
const answersWithinMs = 30_000;

interface Place {
  readonly dataDir: string;
  readonly cluster: string;
  readonly socketDir: string;
  readonly binaries: Binaries;
  readonly account: RunAs;
}

/**
 * A PostgreSQL that nobody starts again but the test, with a database that has the plugin `demo`. Its
 * processes get real signals.
 */
export class PostgresServer implements AsyncDisposable {
  readonly #place: Place;
  readonly #settings: Readonly<Record<string, string>>;
  #process: ChildProcess | undefined;

  private constructor(place: Place, settings: Readonly<Record<string, string>>) {
    this.#place = place;
    this.#settings = settings;
  }

  /** Makes a cluster and starts it. */
  static async create(settings: Readonly<Record<string, string>> = {}): Promise<PostgresServer> {
    const place = await makePlace();
    await ensureCluster({ ...place, signal: new AbortController().signal });
    const server = new PostgresServer(place, settings);
    await server.start();
    await createDatabase(server.#maintenanceUrl, databaseName, "template0");
    await migrate({ connectionString: server.url }, "plugin_sidecar");
    const grants = grantStatements(servingGrants("plugin_sidecar"), sidecarRole);
    await server.query([`create role ${sidecarRole} login;`, ...grants].join("\n"));
    await server.query(
      `insert into plugin_sidecar.plugins (plugin_key, package_name, version, manifest_json)
       values ('demo', 'demo', '1.0.0', '{"capabilities": []}')`,
    );
    return server;
  }

  get url(): string {
    return databaseUrl(this.#maintenanceUrl, databaseName);
  }

  /** The same as {@link sidecarRole}. */
  get sidecarUrl(): string {
    return this.url.replace(`${clusterUser}@`, `${sidecarRole}@`);
  }

  get #maintenanceUrl(): string {
    const host = encodeURIComponent(this.#place.socketDir);
    return `postgres://${clusterUser}@localhost:5432/postgres?host=${host}`;
  }

  /** Starts, and returns when it answers; with other settings beside its own. */
  async start(settings: Readonly<Record<string, string>> = {}): Promise<void> {
    const { binaries, account, cluster, socketDir, dataDir } = this.#place;
    const all = {
      listen_addresses: "",
      unix_socket_directories: socketDir,
      shared_buffers: "32MB",
      max_connections: "20",
      hot_standby: "on",
      log_min_messages: "log",
      // What ends here is PostgreSQL, not the machine: what it has written is there.
      fsync: "off",
      ...this.#settings,
      ...settings,
    };
    const child = spawn(
      join(binaries.dir, "postgres"),
      [
        "-D",
        cluster,
        ...Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
      ],
      { ...identity(account), env: binaries.env, stdio: ["ignore", "ignore", "pipe"] },
    );
    this.#process = child;
    child.stderr?.on("data", (text) => void appendFile(join(dataDir, "log"), text));
    await this.#answers(child);
  }

  async #answers(child: ChildProcess): Promise<void> {
    const endsAt = performance.now() + answersWithinMs;
    for (;;) {
      try {
        await this.#queryOn(this.#maintenanceUrl, "select 1");
        return;
      } catch (error) {
        if (child.exitCode !== null || performance.now() > endsAt) {
          const log = await readFile(join(this.#place.dataDir, "log"), "utf8").catch(() => "");
          throw new Error(`PostgreSQL doesn't answer: ${log.slice(-2_000)}`, { cause: error });
        }
        await pause(20);
      }
    }
  }

  /** SIGINT: fast shutdown. SIGQUIT: immediate, which the next start recovers from. */
  async stop(signal: "SIGINT" | "SIGQUIT" = "SIGINT"): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      child.kill(signal);
      await once(child, "exit");
    }
  }

  /** SIGKILL to every process of the server, and another start on the same data once they are gone. */
  async killAndStart(): Promise<void> {
    const killed = await this.#signalAll("SIGKILL");
    this.#process = undefined;
    for (const pid of killed) {
      while (!(await isGone(pid))) {
        await pause(5);
      }
    }
    await this.start();
  }

  /** SIGSTOP to every process of the server. */
  async freeze(): Promise<void> {
    await this.#signalAll("SIGSTOP");
  }

  async thaw(): Promise<void> {
    await this.#signalAll("SIGCONT");
  }

  /**
   * The postmaster first, or it would notice what becomes of its children; and stopped before that, or it
   * could have another one meanwhile, which would keep the next start away. Returns who was sent it.
   */
  async #signalAll(signal: NodeJS.Signals): Promise<readonly number[]> {
    const postmaster = this.#process?.pid;
    if (postmaster === undefined) {
      return [];
    }
    signalIfThere(postmaster, "SIGSTOP");
    while (!(await isStopped(postmaster))) {
      await pause(1);
    }
    const all = [postmaster, ...(await childrenOf(postmaster))];
    for (const pid of all) {
      signalIfThere(pid, signal);
    }
    return all;
  }

  /** Runs SQL in the database, or in another one, over a connection that nothing stands before. */
  async query<Row extends pg.QueryResultRow>(
    text: string,
    values: unknown[] = [],
    database = databaseName,
  ): Promise<Row[]> {
    return await this.#queryOn<Row>(databaseUrl(this.#maintenanceUrl, database), text, values);
  }

  async #queryOn<Row extends pg.QueryResultRow>(url: string, text: string, values: unknown[] = []) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
    client.on("error", () => undefined);
    await client.connect();
    try {
      const result = await client.query<Row>(text, values);
      return result.rows;
    } finally {
      await client.end();
    }
  }

  /** The sessions of sidecars, and whether each waits for a lock. */
  async sidecarSessions(): Promise<{ pid: number; waits: boolean }[]> {
    return await this.query(
      `select pid, coalesce(wait_event_type = 'Lock', false) as waits
         from pg_stat_activity where usename = $1`,
      [sidecarRole],
      "postgres",
    );
  }

  /**
   * A standby, made from a copy of the running server and following it. With synchronous_standby_names
   * = '*' on this one every commit waits for it.
   */
  async makeStandby(): Promise<PostgresServer> {
    const place = await makePlace();
    const backup = new pg.Client({ connectionString: this.url });
    await backup.connect();
    try {
      await backup.query("select pg_backup_start('standby', true)");
      await promisify(execFile)("cp", ["-a", this.#place.cluster, place.cluster]);
      const { rows } = await backup.query<{ labelfile: string }>(
        "select labelfile from pg_backup_stop(false)",
      );
      await this.#own(join(place.cluster, "backup_label"), rows[0]!.labelfile);
    } finally {
      await backup.end();
    }
    await rm(join(place.cluster, "postmaster.pid"), { force: true });
    await this.#own(join(place.cluster, "standby.signal"), "");
    const primary = `host=${this.#place.socketDir} port=5432 user=${clusterUser} application_name=standby`;
    const standby = new PostgresServer(place, {
      ...this.#settings,
      primary_conninfo: primary,
    });
    await standby.start();
    return standby;
  }

  /** Makes the next start one as a standby that follows nobody. */
  async demote(): Promise<void> {
    await this.#own(join(this.#place.cluster, "standby.signal"), "");
  }

  /** Puts a file in the cluster, as the server's account would. */
  async #own(path: string, text: string): Promise<void> {
    await writeFile(path, text, { mode: 0o600 });
    const { account } = this.#place;
    if (account !== undefined) {
      await promisify(execFile)("chown", [`${account.uid}:${account.gid}`, path]);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.thaw();
    await this.stop("SIGQUIT");
    await rm(this.#place.dataDir, { recursive: true, force: true });
  }
}

async function makePlace(): Promise<Place> {
  const path = join(tmpdir(), `ps-faults-${randomBytes(6).toString("hex")}`);
  await mkdir(dirname(path), { recursive: true });
  const dataDir = await makeDataDir(path);
  const account = await chooseAccount(dataDir);
  const binDir = process.env["PLUGIN_STATE_TEST_PG_BIN_DIR"];
  const signal = new AbortController().signal;
  const binaries = await prepareBinaries({ binDir, dataDir, account, log: quiet, signal });
  const socketDir = await makeSocketDir(dataDir, account);
  return { dataDir, account, binaries, socketDir, cluster: clusterPath(dataDir, binaries.major) };
}

/** Sends a signal, if the process hasn't ended by itself. */
export function signalIfThere(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // Ended by itself since it was listed.
  }
}

async function childrenOf(parent: number): Promise<number[]> {
  const pids = (await readdir("/proc")).map(Number).filter((pid) => pid > 0);
  const stats = await Promise.all(pids.map(statOf));
  return pids.filter((_, index) => stats[index]?.parent === parent);
}

async function isStopped(pid: number): Promise<boolean> {
  const stat = await statOf(pid);
  return stat === undefined || /[TZ]/.test(stat.state);
}

async function isGone(pid: number): Promise<boolean> {
  const stat = await statOf(pid);
  // One whose parent was killed, too, may never be waited for.
  return stat === undefined || stat.state === "Z";
}

async function statOf(pid: number): Promise<{ state: string; parent: number } | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  // The name in parentheses may hold anything.
  const [, state, parent] = /^.*\) (.) (\d+) /s.exec(stat) ?? [];
  return state === undefined ? undefined : { state, parent: Number(parent) };
}
