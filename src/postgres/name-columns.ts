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

/** The parameters that name entries of one scope and namespace. */
export type PlaceColumns = readonly [
  kind: string,
  id: string | null,
  namespace: string,
  keys: readonly string[],
];

/** The same if all of them are of one scope and namespace; otherwise undefined. */
export function placeColumns(names: readonly EntryName[]): PlaceColumns | undefined {
  const [first] = names;
  if (first === undefined) {
    return undefined;
  }
  const { scope, namespace } = first;
  const isOnePlace = names.every(
    (name) =>
      name.scope.kind === scope.kind && name.scope.id === scope.id && name.namespace === namespace,
  );
  return isOnePlace
    ? [scope.kind, scope.id ?? null, namespace, names.map((name) => name.key)]
    : undefined;
}
