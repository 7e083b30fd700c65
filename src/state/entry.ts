/**
 * The nouns. The proto, the SQL, the code and the docs use these words and no others:
 *
 * - plugin: who owns the state; never named by a request, always by the listener's binding;
 * - scope: what the state is about, a kind and (but for `instance`) an id;
 * - namespace: a plugin's own division of a scope;
 * - key: a name within plugin, scope and namespace;
 * - entry: a key with its value and its revision;
 * - revision: the number of a write, 1 higher than that of the plugin's write before it.
 */

/** What a scope's id names, as the table's `scope_kind` spells it. */
export const scopeKinds = [
  "instance",
  "company",
  "project",
  "project_workspace",
  "agent",
  "issue",
  "goal",
  "run",
] as const;

/** One of {@link scopeKinds}. */
export type ScopeKind = (typeof scopeKinds)[number];

/** Where state belongs: one object of the host, or with kind `instance` and no id the installation. */
export interface Scope {
  readonly kind: ScopeKind;
  readonly id: string | undefined;
}

/** The name of one entry of a plugin. */
export interface EntryName {
  readonly scope: Scope;
  readonly namespace: string;
  readonly key: string;
}

/** The number of a write. Branded: a count or a time is no revision. */
export type Revision = bigint & { readonly revision: unique symbol };

/** A key with its value and its revision. */
export interface Entry extends EntryName {
  /** JSON text as jsonb writes it; undefined where only keys were asked for. */
  readonly valueJson: string | undefined;
  readonly revision: Revision;
  /** Microseconds since 1970; undefined where a foreign writer stored infinity. */
  readonly createdUs: bigint | undefined;
  /** Microseconds since 1970; undefined where a foreign writer stored infinity. */
  readonly updatedUs: bigint | undefined;
  /** Microseconds since 1970; undefined for an entry that stays. */
  readonly expiresUs: bigint | undefined;
}
