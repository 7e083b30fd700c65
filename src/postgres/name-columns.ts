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

/** Whether all entries are of one scope and namespace. */
export function isOnePlace(names: readonly EntryName[]): boolean {
  const [first] = names;
  return (
    first !== undefined &&
    names.every(
      ({ scope, namespace }) =>
        scope.kind === first.scope.kind &&
        scope.id === first.scope.id &&
        namespace === first.namespace,
    )
  );
}

/** The parameters that name entries of one place: its kind, id and namespace, and the keys. */
export function placeParameters(names: readonly EntryName[]): (string | null | string[])[] {
  const place = names[0];
  return [
    place?.scope.kind ?? null,
    place?.scope.id ?? null,
    place?.namespace ?? null,
    names.map((name) => name.key),
  ];
}
