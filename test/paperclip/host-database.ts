import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { inject, onTestFinished } from "vitest";
import { withClient } from "../../src/postgres/connection.ts";
import { createDatabase, databaseUrl } from "../support/database.ts";
import { servingRole } from "../support/global-setup.ts";
import { type Engine, type Host, type HostDb, type HostStore, loadHost } from "./host-packages.ts";
import { grants } from "./sidecar.ts";

const execute = promisify(execFile);
const programs = process.env["PLUGIN_STATE_TEST_PG_PROGRAMS"] ?? "";
const templateLock = 7_103_552;
const mostOutputBytes = 256 * 1024 * 1024;

/** A database of a host, dropped with `await using`. */
export class HostDatabase implements AsyncDisposable {
  readonly name: string;
  /** As the host's role, which owns its tables; for libpq, postgres.js and pg alike. */
  readonly url: string;
  /** The same for a sidecar that migrates. */
  readonly ownerUrl: string;
  /** As the role that serves. */
  readonly servingUrl: string;
  readonly host: Host;
  readonly #pool: pg.Pool;
  readonly #clients: HostDb[] = [];
  /** Somebody else drops it. */
  readonly #isBorrowed: boolean;

  private constructor(name: string, host: Host, isBorrowed = false) {
    this.name = name;
    this.host = host;
    this.#isBorrowed = isBorrowed;
    this.url = hostUrl(name);
    this.ownerUrl = databaseUrl(inject("databaseUrl"), name);
    this.servingUrl = databaseUrl(inject("servingUrl"), name);
    this.#pool = new pg.Pool({ connectionString: this.ownerUrl, max: 2 });
    this.#pool.on("error", () => undefined);
  }

  /** One that a host has migrated; with `template0` an empty one. */
  static async create(
    version: Host["name"] = "newer",
    template?: "template0",
  ): Promise<HostDatabase> {
    const host = await loadHost(version);
    const name = `host_${randomBytes(6).toString("hex")}`;
    await createDatabase(inject("databaseUrl"), name, template ?? (await migratedTemplate(host)));
    return new HostDatabase(name, host);
  }

  /** A client of the host's, with a pool of its own. */
  connect(): HostDb {
    const db = this.host.db.createDb(this.url);
    this.#clients.push(db);
    return db;
  }

  /** The host's store on a client of its own. */
  store(): HostStore {
    return this.host.storeOf(this.connect());
  }

  /** Plain SQL as the host's role. */
  async query<Row extends pg.QueryResultRow>(text: string, values: unknown[] = []): Promise<Row[]> {
    return (await this.#pool.query<Row>(text, values)).rows;
  }

  /** The same on a connection of its own, which ends with the work. */
  async session<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
    return await withClient({ connectionString: this.ownerUrl }, work);
  }

  /** Registers a plugin as the host does, and returns its id. */
  async addPlugin(key: string): Promise<string> {
    const [plugin] = await this.query<{ id: string }>(
      `insert into public.plugins (plugin_key, package_name, version, manifest_json)
       values ($1, $1, '1.0.0', '{"capabilities": ["plugin.state.read", "plugin.state.write"]}')
       returning id`,
      [key],
    );
    return plugin!.id;
  }

  /** Lets the serving role do what `plugin-state grants` says; again after a restore. */
  async grantServing(): Promise<void> {
    await this.query(await grants(servingRole));
  }

  /** Another host's packages on the same database; to be disposed of before this one. */
  as(host: Host): HostDatabase {
    return new HostDatabase(this.name, host, true);
  }

  /** Backs it up by the host's own library, into a file that is gone after the test. */
  async backUp(engine: Engine): Promise<string> {
    const backupDir = await mkdtemp(join(tmpdir(), "host-backup-"));
    onTestFinished(() => rm(backupDir, { recursive: true, force: true }));
    const { backupFile } = await this.host.db.runDatabaseBackup({
      connectionString: this.url,
      backupDir,
      backupEngine: engine,
      retention: { dailyDays: 1, weeklyWeeks: 1, monthlyMonths: 1 },
    });
    return backupFile;
  }

  /** Restores such a file by the host's own library; rejects at the first error. */
  async restore(backupFile: string): Promise<void> {
    await this.host.db.runDatabaseRestore({ connectionString: this.url, backupFile });
  }

  /** What `pg_dump` says, without the lines that differ each time. */
  async dump(...flags: string[]): Promise<string> {
    const { stdout } = await execute(join(programs, "pg_dump"), [...flags, this.url], {
      maxBuffer: mostOutputBytes,
    });
    return stdout.replace(/^\\(un)?restrict .*\n/gm, "");
  }

  /** The same of the schema only. Without rights: the owner gives some to the serving role, and takes them back. */
  async dumpSchema(...flags: string[]): Promise<string> {
    return await this.dump("--schema-only", "--no-privileges", ...flags);
  }

  /** Runs a script as `psql` does; rejects at the first error, with all that psql said. */
  async psql(script: string): Promise<string> {
    const running = execute(
      join(programs, "psql"),
      ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", `--dbname=${this.url}`],
      { maxBuffer: mostOutputBytes },
    );
    running.child.stdin?.end(script);
    return (await running).stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#clients.map(({ $client }) => $client.end({ timeout: 1 })));
    if (this.#isBorrowed) {
      await this.#pool.end();
      return;
    }
    const prepared = await this.query<{ gid: string }>(
      "select gid from pg_prepared_xacts where database = current_database()",
    );
    for (const { gid } of prepared) await this.query(`rollback prepared '${gid}'`);
    await this.#pool.end();
    await withClient({ connectionString: inject("databaseUrl") }, (client) =>
      client.query(`drop database if exists ${this.name} with (force)`),
    );
  }
}

/** libpq's environment says where the server is, for programs and for the host's packages, in one URL for all. */
function hostUrl(name: string): string {
  const server = new URL(inject("databaseUrl"));
  process.env["PGHOST"] = server.searchParams.get("host") ?? "";
  process.env["PGPORT"] = server.port;
  process.env["PGUSER"] = server.username;
  process.env["PAPERCLIP_PG_DUMP_PATH"] = join(programs, "pg_dump");
  process.env["PAPERCLIP_PSQL_PATH"] = join(programs, "psql");
  return `postgres:///${name}`;
}

/** Made by the host's own migrations, once for the server: all of them take seconds. */
async function migratedTemplate({ name: version, db }: Host): Promise<string> {
  const name = `host_template_${version}`;
  await withClient({ connectionString: inject("databaseUrl") }, async (client) => {
    await client.query("select pg_advisory_lock($1)", [templateLock]);
    const { rowCount } = await client.query(
      "select from pg_database where datname = $1 and datistemplate",
      [name],
    );
    if (rowCount === 1) return;
    await client.query(`drop database if exists ${name}`);
    await db.ensurePostgresDatabase(hostUrl("postgres"), name);
    await db.applyPendingMigrations(hostUrl(name));
    await client.query(`alter database ${name} is_template true`);
  });
  return name;
}
