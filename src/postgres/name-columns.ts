import type { EntryName } from "../state/entry.ts";
import { textArray } from "./array-literal.ts";

/** The parameters that name entries: kinds, ids, namespaces and keys. */
export function nameColumns(names: readonly EntryName[]): string[] {
  return [
    textArray(names.map((name) => name.scope.kind)),
    textArray(names.map((name) => name.scope.id ?? null)),
    textArray(names.map((name) => name.namespace)),
    textArray(names.map((name) => name.key)),
  ];
}
