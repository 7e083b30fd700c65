import { expect } from "vitest";
import { ScopeKind } from "../../../src/gen/pluginstate/v1/entry_pb.ts";
import { failure } from "../../support/client.ts";
import type { TestDatabase } from "../../support/database.ts";
import { FaultProxy } from "../../support/proxy.ts";
import type { PostgresServer } from "../postgres-server.ts";
import type { Use } from "../resources.ts";
import { serve } from "../serve.ts";
import { HealthWatch } from "./health-watch.ts";
import { limitMs, type Scene } from "./outage.ts";

/** What the tests call. */
export const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };

/** What calls are told while the database is away. */
export const unavailable = {
  codeName: "UNAVAILABLE",
  reason: "DATABASE_UNAVAILABLE",
  retryAfter: true,
};

/** A sidecar of a process of its own, whose way to the database can be broken. */
export interface ProxiedScene extends Scene {
  readonly proxy: FaultProxy;
}

/** Serves what a URL leads to, through a proxy. */
export async function serveThroughProxy(
  url: string,
  sessions: Scene["sessions"],
  use: Use,
): Promise<ProxiedScene> {
  const proxy = use(await FaultProxy.before(url));
  const sidecar = use(await serve(proxy.through(url)));
  return { sidecar, health: use(new HealthWatch(sidecar.address)), proxy, sessions };
}

/** Serves a database of the suite's server so. */
export async function serveDatabase(database: TestDatabase, use: Use): Promise<ProxiedScene> {
  await database.addPlugin("demo");
  // The sidecar's; those that the test itself has are called otherwise.
  const sessions = () =>
    database.query(
      `select pid from pg_stat_activity
        where datname = current_database() and application_name = 'plugin-state-sidecar'`,
    );
  return await serveThroughProxy(database.url, sessions, use);
}

/** Serves a server of the test's own so. */
export async function serveServer(server: PostgresServer, use: Use): Promise<ProxiedScene> {
  return await serveThroughProxy(server.sidecarUrl, () => server.sidecarSessions(), use);
}

/** Reads and writes are refused as they are while the database is away. */
export async function expectUnavailable({ sidecar: { client } }: Scene): Promise<void> {
  // Calls wait until the limit at most, and never until a statement times out.
  const options = { deadlineMs: limitMs + 1_000 };
  expect(await failure(client.call("get", name, options))).toMatchObject(unavailable);
  const set = client.call("set", { ...name, valueJson: "1" }, options);
  expect(await failure(set)).toMatchObject(unavailable);
}
