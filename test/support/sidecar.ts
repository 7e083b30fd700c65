import { inject } from "vitest";
import type { BindingAddress } from "../../src/binding-server.ts";
import type { ServeConfig } from "../../src/config/config.ts";
import { createLog } from "../../src/log.ts";
import { type Sidecar, startSidecar } from "../../src/server.ts";
import { TestClient } from "./client.ts";
import type { TestDatabase } from "./database.ts";

/** A sidecar whose plugins are registered. */
export interface RegisteredSidecar extends Sidecar {
  readonly bindings: readonly (BindingAddress & { readonly pluginId: string })[];
}

/** A sidecar in this process, on a port of its own, with a client for each of its bindings. */
export interface TestSidecar extends AsyncDisposable {
  readonly sidecar: RegisteredSidecar;
  readonly clients: readonly TestClient[];
  /** The first binding's client. */
  readonly client: TestClient;
  readonly address: string;
}

/** Serves plugins of a database; by default one, `demo`, which is registered if it isn't yet. */
export async function testSidecar(
  database: TestDatabase,
  plugins: readonly string[] = ["demo"],
  overrides: Partial<ServeConfig> = {},
): Promise<TestSidecar> {
  for (const key of plugins) {
    const rows = await database.query("select from plugin_sidecar.plugins where plugin_key = $1", [
      key,
    ]);
    if (rows.length === 0) {
      await database.addPlugin(key);
    }
  }
  const sidecar = await startSidecar(
    { ...configFor(database.url, plugins), ...overrides },
    createLog("silent"),
    new AbortController().signal,
  );
  const clients = sidecar.bindings.map(({ address }) => new TestClient(address));
  if (sidecar.bindings.some(({ pluginId }) => pluginId === null)) {
    throw new Error("a plugin isn't registered");
  }
  return {
    sidecar: sidecar as RegisteredSidecar,
    clients,
    client: clients[0]!,
    address: sidecar.bindings[0]!.address,
    [Symbol.asyncDispose]: async () => {
      for (const client of clients) {
        client[Symbol.dispose]();
      }
      await sidecar.stop();
    },
  };
}

/** What `serve` would be told. */
export function configFor(
  url: string,
  plugins: readonly string[],
  migrationUrl?: string,
): ServeConfig {
  return {
    database: {
      kind: "url",
      url,
      ...(migrationUrl && { migrationUrl }),
      namedStatements: !inject("isPooled"),
    },
    stateSchema: "plugin_sidecar",
    migrate: true,
    bindings: plugins.map((plugin) => ({
      plugin,
      listen: { kind: "tcp", host: "127.0.0.1", port: 0 },
    })),
    insecure: false,
    poolSize: 3,
    databaseTimeoutMs: 10_000,
    maxConnections: 256,
    maxCallMs: 300_000,
    bounds: {
      maxValueBytes: 4 * 1024 * 1024,
      rememberRequestsMs: 600_000,
      quotaEntries: undefined,
      quotaBytes: undefined,
    },
    coalescing: true,
    sweepIntervalMs: 100,
    drainTimeoutMs: 2_000,
    failFast: true,
    exitWithParent: false,
    acceptWhenReady: false,
    logLevel: "silent",
    slowCallMs: 1_000,
  };
}
