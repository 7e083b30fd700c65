import { randomBytes } from "node:crypto";
import pg from "pg";
import { inject } from "vitest";
import { createLog } from "../../src/log.ts";
import { withClient } from "../../src/postgres/connection.ts";
import { startSidecar } from "../../src/server.ts";
import { TestClient } from "./client.ts";
import { databaseUrl } from "./database.ts";
import { hostTables } from "./host-tables.ts";
import { configFor } from "./sidecar.ts";

/** A sidecar attached to a host's tables in a database that sorts as English does. */
export interface EnglishSidecar extends AsyncDisposable {
  readonly client: TestClient;
  readonly pluginId: string;
  readonly query: pg.Pool["query"];
}

export async function englishSidecar(): Promise<EnglishSidecar> {
  const server = inject("databaseUrl");
  const name = `test_english_${randomBytes(6).toString("hex")}`;
  const maintain = (text: string) =>
    withClient({ connectionString: server }, (client) => client.query(text));
  await maintain(
    `create database ${name} template template0 strategy file_copy
       locale_provider icu icu_locale 'en-US'`,
  );
  const url = databaseUrl(server, name);
  const pool = new pg.Pool({ connectionString: url, max: 4 });
  pool.on("error", () => undefined);
  await pool.query(hostTables);
  const serving = databaseUrl(inject("servingUrl"), name);
  const config = { ...configFor(serving, ["demo"], url), stateSchema: "public" };
  const sidecar = await startSidecar(config, createLog("silent"), new AbortController().signal);
  const [binding] = sidecar.bindings;
  const client = new TestClient(binding!.address);
  return {
    client,
    pluginId: binding!.pluginId!,
    query: pool.query.bind(pool),
    [Symbol.asyncDispose]: async () => {
      client[Symbol.dispose]();
      await sidecar.stop();
      await pool.end();
      await maintain(`drop database ${name} with (force)`);
    },
  };
}
