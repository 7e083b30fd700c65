import { addDecimals, compareDecimals } from "./decimals.ts";
import { canonical, type Json, mergePatch } from "./json.ts";
import type { Append, Change, Increment } from "./operations.ts";

/** What becomes of a value, as jsonb writes it; or why nothing does. */
export type Changed =
  | { readonly valueJson: string; readonly isUnchanged?: boolean }
  | { readonly fault: "WRONG_TYPE" | "OUT_OF_BOUNDS" };

/** What a change makes of a value; of undefined if there is none. */
export function changed(old: string | undefined, change: Change): Changed {
  switch (change.case) {
    case "increment":
      return incremented(old, change.value);
    case "mergePatch": {
      // Only objects have parts that stay.
      const target = old?.startsWith("{") ? (JSON.parse(old) as Json) : undefined;
      return { valueJson: jsonbText(mergePatch(target, JSON.parse(change.value))) };
    }
    case "append":
      return appended(old, change.value);
  }
}

function incremented(
  old: string | undefined,
  { by, initial, min, max, clamp }: Increment,
): Changed {
  if (old !== undefined && !/^-?[0-9]/.test(old)) {
    return { fault: "WRONG_TYPE" };
  }
  const sum = addDecimals(old ?? (initial || "0"), by || "1");
  if (min !== "" && compareDecimals(sum, min) < 0) {
    return clamp ? { valueJson: min } : { fault: "OUT_OF_BOUNDS" };
  }
  if (max !== "" && compareDecimals(sum, max) > 0) {
    return clamp ? { valueJson: max } : { fault: "OUT_OF_BOUNDS" };
  }
  return { valueJson: sum };
}

function appended(old: string | undefined, { valueJson, maxLength, unique }: Append): Changed {
  if (old !== undefined && !old.startsWith("[")) {
    return { fault: "WRONG_TYPE" };
  }
  const items = JSON.parse(old ?? "[]") as Json[];
  const item = JSON.parse(valueJson) as Json;
  if (unique && items.some((one) => canonical(one) === canonical(item))) {
    return { valueJson: old ?? "[]", isUnchanged: true };
  }
  return { valueJson: jsonbText([...items, item].slice(-maxLength)) };
}

/** A value as jsonb writes it: members by length and then by bytes of their names. */
function jsonbText(value: Json): string {
  if (Array.isArray(value)) {
    return `[${value.map(jsonbText).join(", ")}]`;
  }
  if (typeof value !== "object" || value === null) {
    return JSON.stringify(value);
  }
  const members = Object.entries(value).sort(([a], [b]) => a.length - b.length || (a < b ? -1 : 1));
  return `{${members.map(([name, of]) => `${JSON.stringify(name)}: ${jsonbText(of)}`).join(", ")}}`;
}
