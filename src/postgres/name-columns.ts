import type { EntryName } from "../state/entry.ts";

/** The parameters that name entries: kinds, ids, namespaces and keys. */
export function nameColumns(names: readonly EntryName[]): (string | null)[][] {
  return [
    names.map((name) => name.scope.kind),
    names.map((name) => name.scope.id ?? null),
    names.map((name) => name.namespace),
    names.map((name) => name.key),
  ];
}
