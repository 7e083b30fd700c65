/** A value as JSON.parse makes it. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

type JsonObject = { [name: string]: Json };

/** The pseudocode of RFC 7396, section 2. */
export function mergePatch(target: Json | undefined, patch: Json): Json {
  if (!isObject(patch)) {
    return patch;
  }
  // A map, because an object has members of its own: `__proto__`.
  const result = new Map(Object.entries(isObject(target) ? target : {}));
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) {
      result.delete(name);
    } else {
      result.set(name, mergePatch(result.get(name), value));
    }
  }
  return Object.fromEntries(result);
}

/** JSON text that is the same for equal values: members in order. */
export function canonical(value: Json): string {
  if (Array.isArray(value)) {
    return `[${value.map(canonical).join(",")}]`;
  }
  if (!isObject(value)) {
    return JSON.stringify(value);
  }
  const members = Object.entries(value).map(
    ([name, of]) => `${JSON.stringify(name)}:${canonical(of)}`,
  );
  return `{${members.sort().join(",")}}`;
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
