import dns from "node:dns";
import { beforeAll, describe, test } from "vitest";
import { type TestDatabase, testDatabase } from "../../support/database.ts";
import { FaultProxy } from "../../support/proxy.ts";
import { configFor, testSidecar } from "../../support/sidecar.ts";
import { releasing } from "../resources.ts";
import { HealthWatch } from "./health-watch.ts";
import { goThrough, limitMs, timeout } from "./outage.ts";
import { expectUnavailable, name, type ProxiedScene, serveDatabase } from "./proxied-scene.ts";

const use = releasing();
let database: TestDatabase;
let scene: ProxiedScene;

beforeAll(async () => {
  database = use(await testDatabase());
  scene = await serveDatabase(database, use);
});

describe("service resumes by itself, and what was said is what was done, after", () => {
  test("the port was closed", { timeout }, async () => {
    await goThrough("closed port", scene, {
      begin: () => scene.proxy.close(),
      meanwhile: () => expectUnavailable(scene),
      end: () => scene.proxy.open(),
    });
  });
});

test("a slow network is no outage", { timeout }, async () => {
  await goThrough("slow network", scene, {
    isNoticed: false,
    begin: async () => scene.proxy.slowDown(100, 200),
    meanwhile: async () => {
      // New connections take longest.
      scene.proxy.cut();
      await scene.sidecar.client.call("get", name, { deadlineMs: limitMs + 3_000 });
    },
    end: async () => scene.proxy.slowDown(0),
  });
});

test("a name that leads elsewhere by now is looked up again", { timeout }, async () => {
  const { proxy } = scene;
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
