import { beforeEach, expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { TestClient } from "./support/client.ts";
import { testDatabase } from "./support/database.ts";
import { WatchedSidecar } from "./support/watched-sidecar.ts";

const calls = 1_000;
const valueJson = JSON.stringify("x".repeat(1_000));
/**
 * Bytes, on any Node.js. 1,200 to 1,750 are usual; 3,800 to 8,600 when something keeps a part of each call
 * (docs/adr/0010-the-hot-path-makes-nothing-twice.md).
 */
const keptOfACall = 2_500;
const name = { scope: { kind: ScopeKind.INSTANCE }, namespace: "", key: "k" };

let sidecar: WatchedSidecar;
let client: TestClient;

beforeEach(async () => {
  const database = await testDatabase();
  await database.addPlugin("demo");
  sidecar = await WatchedSidecar.start(database.url);
  client = new TestClient(sidecar.address);
  onTestFinished(async () => {
    client[Symbol.dispose]();
    await sidecar[Symbol.asyncDispose]();
    await database[Symbol.asyncDispose]();
  });
});

test.each([
  ["of a call, its request and its reply", () => client.call("set", { ...name, valueJson })],
  ["of a statement and its rows", () => client.call("get", name)],
])("next to nothing %s is kept when what is young was collected", async (_what, call) => {
  await client.call("set", { ...name, valueJson });
  // Code is compiled, tables grow.
  await repeat(call);
  await sidecar.memory("full");
  const before = total(await sidecar.memory("young"));

  await repeat(call);

  const kept = total(await sidecar.memory("young")) - before;
  expect(kept / calls).toBeLessThan(keptOfACall);
});

async function repeat(call: () => Promise<unknown>): Promise<void> {
  for (let n = 0; n < calls; n++) {
    await call();
  }
}

function total(memory: { readonly heapUsed: number; readonly arrayBuffers: number }): number {
  return memory.heapUsed + memory.arrayBuffers;
}
