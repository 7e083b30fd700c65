import { expect, test } from "vitest";
import { examine } from "../../src/postgres/doctor/examine.ts";
import { PostgresServer } from "../faults/postgres-server.ts";

test("of a standby it is said that it is one, and nothing that can't be done there", async () => {
  await using primary = await PostgresServer.create();
  await using standby = await primary.makeStandby();

  const results = await examine(
    { connectionString: standby.url },
    { stateSchema: "plugin_sidecar", isEmbedded: false },
  );

  expect(results.at(-1)).toMatchObject({
    name: "writable",
    verdict: "problem",
    kind: "unavailable",
    remedy: [{ say: expect.stringMatching(/^Give the primary's URL/) }],
  });
});
