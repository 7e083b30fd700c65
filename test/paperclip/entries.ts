import { expect } from "vitest";
import { type Entry, ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import type { ScopeSummary } from "../../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { scopeKinds } from "../../src/state/entry.ts";
import type { TestClient } from "../support/client.ts";
import type { HostDatabase } from "./host-database.ts";

export const instance = { kind: ScopeKind.INSTANCE };

/** All that a worker is told of the entries of the instance scope. Times to the millisecond, as a host's dump has them. */
export async function entriesOf(client: TestClient): Promise<object[]> {
  const entries: Entry[] = [];
  let pageToken = "";
  do {
    const page = await client.call("list", { scope: instance, pageToken });
    entries.push(...page.entries);
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return entries.map(({ key, valueJson, revision, createTime, expireTime }) => ({
    key,
    valueJson,
    revision,
    createdAt: millisecondsOf(createTime),
    expiresAt: millisecondsOf(expireTime),
  }));
}

function millisecondsOf(time: { seconds: bigint; nanos: number } | undefined) {
  return time && Number(time.seconds) * 1_000 + Math.floor(time.nanos / 1e6);
}

/** That the sidecar counts entries as the rows are: of each scope, and of the plugin, for its quota. */
export async function expectCountsOfRows(
  database: HostDatabase,
  client: TestClient,
  pluginId: string,
): Promise<void> {
  const rows = await database.query<{ scope: string; entries: number }>(
    `select concat_ws('/', scope_kind, coalesce(scope_id, ''), namespace) as scope, count(*)::int as entries
       from public.plugin_state where plugin_id = $1 group by 1`,
    [pluginId],
  );
  const scopes: ScopeSummary[] = [];
  let pageToken = "";
  do {
    const page = await client.call("listScopes", { pageSize: 1_000, pageToken });
    scopes.push(...page.scopes);
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  const told = scopes.map(({ scope, namespace, entries }) => ({
    scope: [scopeKinds[scope!.kind - 1], scope!.id, namespace].join("/"),
    entries: Number(entries),
  }));
  const inOrder = (a: { scope: string }, b: { scope: string }) => (a.scope < b.scope ? -1 : 1);
  expect(told.sort(inOrder)).toEqual(rows.sort(inOrder));

  const [counter] = await database.query<{ entries: number; counted: number }>(
    `select r.entries::int, (select count(*)::int from public.plugin_state s where s.plugin_id = r.plugin_id) as counted
       from plugin_sidecar.plugin_revisions r where r.plugin_id = $1`,
    [pluginId],
  );
  expect(counter!.entries).toBe(counter!.counted);
}

/** Which count of revisions a plugin is in: another one after it began anew. */
export async function epochOf(database: HostDatabase, pluginId: string): Promise<string> {
  const [counter] = await database.query<{ epoch: string }>(
    "select epoch from plugin_sidecar.plugin_revisions where plugin_id = $1",
    [pluginId],
  );
  return counter!.epoch;
}
