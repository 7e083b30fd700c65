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

/** The parameters that name entries of one scope and namespace, and their keys; undefined if they aren't. */
export function placeColumns(
  names: readonly EntryName[],
): readonly (string | null | string[])[] | undefined {
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
