import { scopeKinds } from "../state/entry.ts";
import { maxScopeIdBytes } from "../state/limits.ts";
import { type AllowedScope, type Capability, capabilities } from "../state/permissions.ts";

/** What {@link parseAllowedScope} demands, completing "must be …". */
export const allowedScopeRule = `KIND or KIND:ID, with one of ${scopeKinds.join(", ")} as KIND; instance takes no ID`;

/** Whether a text is the name of a capability. */
export function isCapability(text: string): text is Capability {
  return capabilities.some((capability) => capability === text);
}

/** Reads `KIND` or `KIND:ID`; undefined when it is neither. */
export function parseAllowedScope(text: string): AllowedScope | undefined {
  const [, kindName, id] = /^([a-z_]+)(?::(.+))?$/s.exec(text) ?? [];
  const kind = scopeKinds.find((known) => known === kindName);
  const isTooLong = Buffer.byteLength(id ?? "") > maxScopeIdBytes;
  if (kind === undefined || isTooLong || (kind === "instance" && id !== undefined)) {
    return undefined;
  }
  return { kind, id };
}
