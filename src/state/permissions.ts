import type { Scope, ScopeKind } from "./entry.ts";

/** What a binding may allow, spelt as hosts spell it in a plugin's manifest. */
export const capabilities = ["plugin.state.read", "plugin.state.write"] as const;

/** One of {@link capabilities}. Writing doesn't imply reading. */
export type Capability = (typeof capabilities)[number];

/** Scopes that are allowed: one, or all of a kind if it has no id. */
export interface AllowedScope {
  readonly kind: ScopeKind;
  readonly id: string | undefined;
}

/** What a binding allows. */
export interface Permissions {
  readonly capabilities: readonly Capability[];
  /** At least one; undefined allows every scope. */
  readonly scopes: readonly AllowedScope[] | undefined;
}

/** Everything. */
export const allPermissions: Permissions = { capabilities, scopes: undefined };

/** Whether nothing is forbidden, so that nothing need be checked. */
export function allowsAll(permissions: Permissions): boolean {
  return (
    permissions.scopes === undefined &&
    capabilities.every((capability) => permissions.capabilities.includes(capability))
  );
}

/** Whether a scope is among those that are allowed. */
export function allowsScope({ scopes }: Permissions, { kind, id }: Scope): boolean {
  return (
    scopes === undefined ||
    scopes.some((allowed) => allowed.kind === kind && (allowed.id ?? id) === id)
  );
}
