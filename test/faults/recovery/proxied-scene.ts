import { expect } from "vitest";
import { ScopeKind } from "../../../src/gen/pluginstate/v1/entry_pb.ts";
import { failure } from "../../support/client.ts";
import type { TestDatabase } from "../../support/database.ts";
import { FaultProxy } from "../../support/proxy.ts";
import { serve } from "../serve.ts";
import { HealthWatch } from "./health-watch.ts";
import type { Scene } from "./outage.ts";
import { use } from "./resources.ts";

/** What the tests call. */
export const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };

/** A sidecar of a process of its own, whose way to the database can be broken. */
export interface ProxiedScene extends Scene {
  readonly proxy: FaultProxy;
}

/** Serves a database through a proxy, until the tests of the file have ended. */
export async function serveThroughProxy(database: TestDatabase): Promise<ProxiedScene> {
  await database.addPlugin("demo");
  const proxy = use(await FaultProxy.before(database.url));
  const sidecar = use(await serve(proxy.through(database.url)));
  return {
    sidecar,
    health: use(new HealthWatch(sidecar.address)),
    proxy,
    // The sidecar's; those that the test itself has are called otherwise.
    sessions: () =>
      database.query(
        `select pid from pg_stat_activity
          where datname = current_database() and application_name = 'plugin-state-sidecar'`,
      ),
  };
}

/** Reads and writes are refused as they are while the database is away. */
export async function expectUnavailable({ sidecar: { client } }: Scene): Promise<void> {
  const unavailable = { codeName: "UNAVAILABLE", reason: "DATABASE_UNAVAILABLE", retryAfter: true };
  const options = { deadlineMs: 3_000 };
  expect(await failure(client.call("get", name, options))).toMatchObject(unavailable);
  const set = client.call("set", { ...name, valueJson: "1" }, options);
  expect(await failure(set)).toMatchObject(unavailable);
}
