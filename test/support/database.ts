import { randomBytes } from "node:crypto";
import pg from "pg";
import { inject } from "vitest";
import { type Connection, withClient } from "../../src/postgres/connection.ts";
import { templateName } from "./global-setup.ts";

/** A database of a test's own, dropped with `await using`. */
export interface TestDatabase extends AsyncDisposable {
  /** As the role that serves, which has no rights but those of src/postgres/grants.ts. */
  readonly url: string;
  /** What tells the command to serve it. */
  readonly environment: Readonly<Record<string, string>>;
  /** As the role that owns everything. */
  readonly ownerUrl: string;
  /** The owner's. */
  readonly connection: Connection;
  /** Runs plain SQL as the owner, as a foreign writer would. */
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>;
  /** Registers a plugin by plain SQL, as the host does, and returns its id. */
  addPlugin(key: string): Promise<string>;
}

/** Makes a database: migrated, or with `template0` empty. About 40 ms. */
export async function testDatabase(template = templateName): Promise<TestDatabase> {
  const server = inject("databaseUrl");
  const name = `test_${randomBytes(6).toString("hex")}`;
  await createDatabase(server, name, template);
  const ownerUrl = databaseUrl(server, name);
  const pool = new pg.Pool({ connectionString: ownerUrl, max: 2 });
  pool.on("error", () => undefined);
  const query: TestDatabase["query"] = async (text, values) =>
    (await pool.query(text, values)).rows;
  const url = databaseUrl(inject("servingUrl"), name);
  const isPooled = inject("isPooled");
  return {
    url,
    environment: {
      DATABASE_URL: url,
      ...(isPooled && { PLUGIN_STATE_NO_PREPARED_STATEMENTS: "1" }),
    },
    ownerUrl,
    connection: { connectionString: ownerUrl },
    query,
    addPlugin: async (key) => {
      const [plugin] = await query<{ id: string }>(
        `insert into plugin_sidecar.plugins (plugin_key, package_name, version, manifest_json)
         values ($1, $1, '1.0.0', '{"capabilities": []}') returning id`,
        [key],
      );
      return plugin!.id;
    },
    [Symbol.asyncDispose]: async () => {
      await pool.end();
      await withClient({ connectionString: server }, (client) =>
        client.query(`drop database ${name} with (force)`),
      );
    },
  };
}

/** The same server, another database. */
export function databaseUrl(serverUrl: string, name: string): string {
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return url.href;
}

export async function createDatabase(serverUrl: string, name: string, template: string) {
  await withClient({ connectionString: serverUrl }, (client) =>
    client.query(`create database ${name} template ${template} strategy file_copy`),
  );
}
