import { beforeAll, expect, test } from "vitest";
import { ScopeKind } from "../../../src/gen/pluginstate/v1/entry_pb.ts";
import { failure } from "../../support/client.ts";
import { FaultProxy } from "../../support/proxy.ts";
import { PostgresServer } from "../postgres-server.ts";
import { releasing } from "../resources.ts";
import { serve } from "../serve.ts";
import { HealthWatch } from "./health-watch.ts";
import { goThrough, type Scene, timeout } from "./outage.ts";

const use = releasing();
let primary: PostgresServer;
let standby: PostgresServer;
let proxy: FaultProxy;
let scene: Scene;

beforeAll(async () => {
  primary = await PostgresServer.create();
  proxy = use(await FaultProxy.before(primary.url));
  const sidecar = use(await serve(proxy.through(primary.sidecarUrl)));
  const health = use(new HealthWatch(sidecar.address));
  scene = { sidecar, health, proxy, sessions: () => primary.sidecarSessions() };
  use({
    [Symbol.asyncDispose]: async () => {
      await primary[Symbol.asyncDispose]();
    },
  });
});

const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };

/** Every commit waits until the standby has it too. */
async function beginReplication(): Promise<void> {
  standby = await primary.makeStandby();
  await primary.query("alter system set synchronous_standby_names = '*'");
  await primary.query("select pg_reload_conf()");
  const states = () =>
    primary
      .query<{ sync_state: string }>("select sync_state from pg_stat_replication")
      .then((rows) => rows.map(({ sync_state }) => sync_state));
  await expect.poll(states, { timeout: 20_000 }).toEqual(["sync"]);
}

/** The standby becomes the primary; there is none for it yet. */
async function promote(): Promise<void> {
  await standby.query("select pg_promote()", [], "postgres");
  await standby.query("alter system reset synchronous_standby_names");
  await standby.query("select pg_reload_conf()");
}

test("a standby takes over under the same address, and nothing that was acknowledged is lost", {
  timeout: 2 * timeout,
}, async () => {
  await goThrough("failover", scene, (round) => {
    return {
      prepare: beginReplication,
      begin: () => primary.stop(round % 2 === 0 ? "SIGQUIT" : "SIGINT"),
      end: async () => {
        proxy.switchTo(standby.url);
        await promote();
        await primary[Symbol.asyncDispose]();
        primary = standby;
      },
    };
  });
});

test("while the address leads to the old primary, now a standby, nothing is read from it nor written", {
  timeout: 2 * timeout,
}, async () => {
  await goThrough("failover with the old primary in the way", scene, () => ({
    prepare: beginReplication,
    begin: () => primary.stop("SIGINT"),
    meanwhile: async () => {
      await promote();
      await primary.demote();
      await primary.start();
      // What it has is of another time: somebody else may write to the new primary already.
      const unavailable = { codeName: "UNAVAILABLE", reason: "DATABASE_UNAVAILABLE" };
      for (let n = 0; n < 20; n++) {
        const get = scene.sidecar.client.call("get", name, { deadlineMs: 3_000 });
        expect(await failure(get)).toMatchObject(unavailable);
        const set = scene.sidecar.client.call(
          "set",
          { ...name, valueJson: "1" },
          { deadlineMs: 3_000 },
        );
        expect(await failure(set)).toMatchObject(unavailable);
      }
    },
    end: async () => {
      // Connections to the old one would stay.
      proxy.switchTo(standby.url);
      await primary[Symbol.asyncDispose]();
      primary = standby;
    },
  }));
});
