import { expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { failure } from "./support/client.ts";
import { testDatabase } from "./support/database.ts";
import { testSidecar } from "./support/sidecar.ts";

const scope = { kind: ScopeKind.INSTANCE };

test("a value too large to be read fails its own call, and neither the others nor the process", async () => {
  await using database = await testDatabase();
  await using server = await testSidecar(database);
  await server.client.call("set", { scope, key: "small", valueJson: "1" });
  // 45 kB as stored, 79 MB as text: jsonb keeps an exponent, and writes every digit.
  await database.query(
    `insert into plugin_sidecar.plugin_state (plugin_id, scope_kind, state_key, value_json)
     select id, 'instance', 'huge', (select jsonb_agg(n) from (select ('1e131071')::numeric as n from generate_series(1, 600)) as x)
       from plugin_sidecar.plugins`,
  );

  const [huge, ...small] = await Promise.all([
    failure(server.client.call("get", { scope, key: "huge" })),
    ...Array.from({ length: 20 }, () => server.client.call("get", { scope, key: "small" })),
  ]);
  const page = await failure(server.client.call("list", { scope }));
  const keys = await server.client.call("list", { scope, keysOnly: true });

  expect(huge).toMatchObject({
    codeName: "RESOURCE_EXHAUSTED",
    reason: "TOO_LARGE",
    metadata: { limit: "67108864" },
  });
  expect(small.map(({ entry }) => entry?.valueJson)).toEqual(Array(20).fill("1"));
  expect(page.reason).toBe("TOO_LARGE");
  expect(keys.entries.map(({ key }) => key)).toEqual(["huge", "small"]);
});
