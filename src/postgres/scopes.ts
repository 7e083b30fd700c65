import type { Revision, ScopeKind } from "../state/entry.ts";
import { scopeKinds } from "../state/entry.ts";
import { compareKeys } from "../state/key-order.ts";
import type { ListScopes, ScopeSummary } from "../state/requests.ts";
import type { At } from "../state/store.ts";
import type { PluginDatabase } from "./plugin-database.ts";
import { listScopes } from "./statements.ts";

/** Entries after whose place a page ends: to count them takes about 0.1 s. */
const maxPageEntries = 100_000;

const kindsInOrder: readonly ScopeKind[] = [...scopeKinds].sort(compareKeys);

/** A place; the last row has no kind, and tells of the page. */
interface PlaceRow {
  readonly kind: ScopeKind | null;
  readonly id: string | null;
  readonly namespace: string;
  readonly entries: bigint;
  readonly bytes: bigint;
  readonly revision: bigint;
  readonly is_more: boolean;
}

/** See {@link Store.listScopes}. */
export async function readScopes(
  database: PluginDatabase,
  list: ListScopes,
): Promise<At & { readonly scopes: readonly ScopeSummary[]; readonly more: boolean }> {
  const rows = await database.read<PlaceRow>(listScopes, [
    kindsOf(list),
    list.after?.scope.id ?? null,
    list.after?.namespace ?? null,
    list.pageSize,
    maxPageEntries,
  ]);
  const scopes = rows.flatMap(({ kind, id, namespace, entries, bytes }) =>
    kind === null ? [] : [{ scope: { kind, id: id ?? undefined }, namespace, entries, bytes }],
  );
  const end = rows.at(-1);
  return {
    scopes,
    more: end?.is_more ?? false,
    revision: (end?.revision ?? 0n) as Revision,
  };
}

/** The kinds to read, of which the first is that of the place before the page. */
function kindsOf({ kind, after }: ListScopes): readonly ScopeKind[] {
  const asked = kind === undefined ? kindsInOrder : [kind];
  return after === undefined
    ? asked
    : asked.filter((candidate) => compareKeys(candidate, after.scope.kind) >= 0);
}
