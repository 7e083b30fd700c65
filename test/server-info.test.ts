import { expect, test } from "vitest";
import { testDatabase } from "./support/database.ts";
import { configFor, testSidecar } from "./support/sidecar.ts";

test("GetServerInfo tells the bounds that the sidecar was started with", async () => {
  await using database = await testDatabase();
  const bounds = {
    maxValueBytes: 5_000,
    rememberRequestsMs: 90_000,
    quotaEntries: 7,
    quotaBytes: undefined,
  };
  await using server = await testSidecar(database, ["demo"], { bounds });
  const { limits, plugin, apiVersions } = await server.client.call("getServerInfo", {});
  expect(plugin?.key).toBe("demo");
  expect(apiVersions).toEqual(["pluginstate.v1"]);
  expect(limits).toMatchObject({
    maxValueBytes: 5_000,
    requestIdSeconds: 90n,
    quotaEntries: 7n,
    quotaBytes: 0n,
    maxTransactChecks: 128,
    maxTransactOperations: 128,
    maxBatchGetNames: 128,
    maxMergePatchDepth: 100,
  });
});

test("without quotas GetServerInfo says none", async () => {
  await using database = await testDatabase();
  expect(configFor(database.url, []).bounds.quotaEntries).toBeUndefined();
  await using server = await testSidecar(database);
  const { limits } = await server.client.call("getServerInfo", {});
  expect(limits).toMatchObject({ quotaEntries: 0n, quotaBytes: 0n });
});
