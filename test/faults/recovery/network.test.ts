import dns from "node:dns";
import { beforeAll, describe, expect, test } from "vitest";
import { ScopeKind } from "../../../src/gen/pluginstate/v1/entry_pb.ts";
import { failure } from "../../support/client.ts";
import { type TestDatabase, testDatabase } from "../../support/database.ts";
import { FaultProxy } from "../../support/proxy.ts";
import { configFor, testSidecar } from "../../support/sidecar.ts";
import { serve } from "../serve.ts";
import { HealthWatch } from "./health-watch.ts";
import { goThrough, type Scene, timeout } from "./outage.ts";
import { use } from "./resources.ts";

let database: TestDatabase;
let proxy: FaultProxy;
let scene: Scene;

beforeAll(async () => {
  database = use(await testDatabase());
  await database.addPlugin("demo");
  proxy = use(await FaultProxy.before(database.url));
  const sidecar = use(await serve(proxy.through(database.url)));
  scene = { sidecar, health: use(new HealthWatch(sidecar.address)), proxy, sessions };
});

/** The sidecar's; those that the test itself has are called otherwise. */
const sessions = () =>
  database.query<{ pid: number }>(
    `select pid from pg_stat_activity
      where datname = current_database() and application_name = 'plugin-state-sidecar'`,
  );

const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };
const unavailable = { codeName: "UNAVAILABLE", reason: "DATABASE_UNAVAILABLE", retryAfter: true };

async function expectUnavailable(): Promise<void> {
  const { client } = scene.sidecar;
  const options = { deadlineMs: 3_000 };
  expect(await failure(client.call("get", name, options))).toMatchObject(unavailable);
  const set = client.call("set", { ...name, valueJson: "1" }, options);
  expect(await failure(set)).toMatchObject(unavailable);
}

describe("service resumes by itself, and what was said is what was done, after", () => {
  test("the port was closed", { timeout }, async () => {
    await goThrough("closed port", scene, {
      begin: () => proxy.close(),
      meanwhile: expectUnavailable,
      end: () => proxy.open(),
    });
  });

  test.each([
    ["swallowed everything", {}],
    ["swallowed what was sent", { replies: false }],
    ["swallowed what was answered", { requests: false }],
  ])("the network %s", { timeout }, async (what, direction) => {
    await goThrough(`network that ${what}`, scene, {
      begin: async () => proxy.silence(direction),
      meanwhile: expectUnavailable,
      end: async () => proxy.resume(),
    });
  });
});

test("a slow network is no outage", { timeout }, async () => {
  await goThrough("slow network", scene, {
    isNoticed: false,
    begin: async () => proxy.slowDown(100, 200),
    meanwhile: async () => {
      // New connections take longest.
      proxy.cut();
      await scene.sidecar.client.call("get", name, { deadlineMs: 5_000 });
    },
    end: async () => proxy.slowDown(0),
  });
});

test("a sidecar that starts, or comes back, over a slow network serves", { timeout }, async () => {
  proxy.slowDown(250, 100);
  const sidecar = use(await serve(proxy.through(database.url)));
  const health = use(new HealthWatch(sidecar.address));
  await health.says("SERVING", 0);
  proxy.silence();
  await health.says("NOT_SERVING", 0);
  proxy.resume();
  await health.says("SERVING", 0);
  await sidecar.client.call("set", { ...name, valueJson: "1" });
  proxy.slowDown(0);
  await sidecar[Symbol.asyncDispose]();
});

test("a name that leads elsewhere by now is looked up again", { timeout }, async () => {
  const { port } = proxy;
  const other = use(await FaultProxy.before(database.url, { host: "127.0.0.2", port }));
  let address = "127.0.0.1";
  using _ = lookUp("database.test", () => address);
  const url = proxy.through(database.url).replace("127.0.0.1", "database.test");
  const { database: config } = configFor(url, []);
  const sidecar = use(await testSidecar(database, ["demo"], { database: config }));
  const named = {
    sidecar: { client: sidecar.client, address: sidecar.address },
    health: use(new HealthWatch(sidecar.address)),
    proxy: other,
    sessions: async () => [],
  };
  await goThrough("another address", named, (round) => {
    const [from, to] = round % 2 === 0 ? [proxy, other] : [other, proxy];
    return {
      begin: async () => from.silence(),
      end: async () => {
        address = to === other ? "127.0.0.2" : "127.0.0.1";
        to.resume();
      },
    };
  });
});

/** Resolves a name as told, for this process. */
function lookUp(name: string, addressOf: () => string): Disposable {
  const real = dns.lookup;
  const lookup = (host: string, ...rest: unknown[]) => {
    if (host !== name) {
      return Reflect.apply(real, dns, [host, ...rest]);
    }
    const [options, done] = rest as [dns.LookupOptions, (...found: unknown[]) => void];
    const address = addressOf();
    process.nextTick(() =>
      options.all ? done(null, [{ address, family: 4 }]) : done(null, address, 4),
    );
  };
  Object.assign(dns, { lookup });
  return { [Symbol.dispose]: () => Object.assign(dns, { lookup: real }) };
}
