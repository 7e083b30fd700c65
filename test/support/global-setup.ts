import { randomBytes } from "node:crypto";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { type EmbeddedPostgres, startEmbedded } from "../../src/embedded/embedded-postgres.ts";
import { withClient } from "../../src/postgres/connection.ts";
import { grantStatements, servingGrants } from "../../src/postgres/grants.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { createDatabase, databaseUrl } from "./database.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** URL of the server's maintenance database; see database.ts for one of your own. */
    databaseUrl: string;
    /** The same as the role that serves. */
    servingUrl: string;
  }
}

/** The database that every test's own is copied from: migrated, empty. */
export const templateName = "template_migrated";

/** The role of the sidecars under test. */
const servingRole = "test_serving";

const quiet = { info() {}, warn() {}, error() {} };

/**
 * Starts one real PostgreSQL for the run: the embedded one or, with PLUGIN_STATE_TEST_PG_BIN_DIR,
 * another version's binaries under the same supervisor.
 */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const dataDir = join(tmpdir(), `ps-test-${randomBytes(6).toString("hex")}`);
  const binDir = process.env["PLUGIN_STATE_TEST_PG_BIN_DIR"];
  const settings = { max_connections: "200" };
  const postgres = await startEmbedded({
    dataDir,
    log: quiet,
    settings,
    ...(binDir ? { binDir } : {}),
  });
  const url = urlOf(postgres);
  await createDatabase(url, templateName, "template0");
  await migrate({ connectionString: databaseUrl(url, templateName) }, "plugin_sidecar");
  await withClient({ connectionString: databaseUrl(url, templateName) }, async (client) => {
    await client.query(`create role ${servingRole} login`);
    for (const statement of grantStatements(servingGrants("plugin_sidecar"), servingRole)) {
      await client.query(statement);
    }
  });
  project.provide("databaseUrl", url);
  project.provide("servingUrl", urlOf(postgres, servingRole));
  return async () => {
    await postgres.stop();
    await rm(dataDir, { recursive: true, force: true });
  };
}

function urlOf({ connection }: EmbeddedPostgres, user = connection.user): string {
  const { host, port } = connection;
  return `postgres://${user}@localhost:${port}/postgres?host=${encodeURIComponent(host)}`;
}
