import { randomBytes } from "node:crypto";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { startEmbedded } from "../../src/embedded/embedded-postgres.ts";
import { type Connection, withClient } from "../../src/postgres/connection.ts";
import { grantStatements, servingGrants } from "../../src/postgres/grants.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { createDatabase, databaseUrl } from "./database.ts";
import { startPgBouncer } from "./pgbouncer.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** URL of the server's maintenance database; see database.ts for one of your own. */
    databaseUrl: string;
    /** The same as the role that serves, through the pooler if there is one. */
    servingUrl: string;
    /** Whether sidecars reach the database through a pooler that loses named statements. */
    isPooled: boolean;
  }
}

/** The database that every test's own is copied from: migrated, empty. */
export const templateName = "template_migrated";

/** The role of the sidecars under test. */
export const servingRole = "test_serving";

const quiet = { info() {}, warn() {}, error() {} };

/**
 * Starts one real PostgreSQL for the run: the embedded one or, with PLUGIN_STATE_TEST_PG_BIN_DIR,
 * another version's binaries under the same supervisor. With PLUGIN_STATE_TEST_PGBOUNCER, a pgbouncer
 * program, sidecars reach it through that; what tests do themselves goes to the server.
 */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const dataDir = join(tmpdir(), `ps-test-${randomBytes(6).toString("hex")}`);
  const binDir = process.env["PLUGIN_STATE_TEST_PG_BIN_DIR"];
  // With PLUGIN_STATE_TEST_FSYNC=off a disk that stalls for seconds isn't taken for a database that is away.
  // Nothing is lost by it that isn't lost with the machine.
  const fsync = process.env["PLUGIN_STATE_TEST_FSYNC"] ?? "on";
  const settings = { max_connections: "200", max_prepared_transactions: "10", fsync };
  const postgres = await startEmbedded({
    dataDir,
    log: quiet,
    settings,
    ...(binDir ? { binDir } : {}),
  });
  const url = urlOf(postgres.connection, postgres.connection.user);
  await createDatabase(url, templateName, "template0");
  await migrate({ connectionString: databaseUrl(url, templateName) }, "plugin_sidecar");
  const template = { connectionString: databaseUrl(url, templateName) };
  await withClient(template, (client) => client.query(`create role ${servingRole} login`));
  await grantServing(template);
  project.provide("databaseUrl", url);
  const program = process.env["PLUGIN_STATE_TEST_PGBOUNCER"];
  const { host, port, user } = postgres.connection;
  const users = [servingRole, user];
  const pooler = program
    ? await startPgBouncer(program, `${dataDir}-pool`, { host, port, users })
    : undefined;
  project.provide("servingUrl", urlOf(pooler ?? { host, port }, servingRole));
  project.provide("isPooled", pooler !== undefined);
  return async () => {
    await pooler?.stop();
    await postgres.stop();
    await rm(dataDir, { recursive: true, force: true });
  };
}

/** Grants the role that tests' sidecars serve as what it needs in one database. */
export async function grantServing(connection: Connection): Promise<void> {
  await withClient(connection, async (client) => {
    for (const statement of grantStatements(servingGrants("plugin_sidecar"), servingRole)) {
      await client.query(statement);
    }
  });
}

function urlOf({ host, port }: { host: string; port: number }, user: string): string {
  return `postgres://${user}@localhost:${port}/postgres?host=${encodeURIComponent(host)}`;
}
