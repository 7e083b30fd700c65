import { beforeAll, describe, test } from "vitest";
import { type TestDatabase, testDatabase } from "../../support/database.ts";
import { releasing } from "../resources.ts";
import { serve } from "../serve.ts";
import { HealthWatch } from "./health-watch.ts";
import { goThrough, timeout } from "./outage.ts";
import { expectUnavailable, name, type ProxiedScene, serveDatabase } from "./proxied-scene.ts";

const use = releasing();
let database: TestDatabase;
let scene: ProxiedScene;

beforeAll(async () => {
  database = use(await testDatabase());
  scene = await serveDatabase(database, use);
});

describe("service resumes by itself, and what was said is what was done, after", () => {
  test.each([
    ["swallowed everything", {}],
    ["swallowed what was sent", { replies: false }],
    ["swallowed what was answered", { requests: false }],
  ])("the network %s", { timeout }, async (what, direction) => {
    await goThrough(`network that ${what}`, scene, {
      begin: async () => scene.proxy.silence(direction),
      meanwhile: () => expectUnavailable(scene),
      end: async () => scene.proxy.resume(),
    });
  });
});

test("a sidecar that starts, or comes back, over a slow network serves", { timeout }, async () => {
  scene.proxy.slowDown(250, 100);
  const sidecar = use(await serve(scene.proxy.through(database.url)));
  const health = use(new HealthWatch(sidecar.address));
  await health.says("SERVING", 0);
  scene.proxy.silence();
  await health.says("NOT_SERVING", 0);
  scene.proxy.resume();
  await health.says("SERVING", 0);
  await sidecar.client.call("set", { ...name, valueJson: "1" });
  scene.proxy.slowDown(0);
  await sidecar[Symbol.asyncDispose]();
});
