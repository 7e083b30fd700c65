import { test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { testDatabase } from "./support/database.ts";
import { testSidecar } from "./support/sidecar.ts";
const scope = { kind: ScopeKind.INSTANCE };
test(`big`, async () => {
  await using db = await testDatabase();
  await using s = await testSidecar(db);
  await s.client.call("set", {scope, key: "n", valueJson: `[${Array(100).fill("1e131071").join()}]`});
  let peak = 0; const iv = setInterval(() => { peak = Math.max(peak, process.memoryUsage().rss); }, 5);
  for (const n of [1, 8, 32]) {
    peak = 0;
    const t = Date.now();
    await Promise.all(Array.from({length: n}, async () => {
      const r = await s.client.call("get", {scope, key: "n"}); 
      return r.entry!.valueJson.length; })).then((x) => console.log(n, x[0], Date.now() - t, "ms"), (e) => console.log(n, "ERR", e.codeName, e.reason, e.message));
    console.log(n, "peak MB", peak / 1e6);
  }
  clearInterval(iv);
}, 60_000);
