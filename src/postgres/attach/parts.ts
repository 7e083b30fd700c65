/**
 * What stands on the host's `plugin_state` while a sidecar is attached: nullable columns, plain triggers and indexes,
 * all named so that the host never does.
 */

/** A column of the sidecar's. */
export interface Column {
  readonly name: string;
  readonly type: string;
  /** Of rows that an external writer inserts; set after the column was added, so that adding it rewrites nothing. */
  readonly default?: string;
}

export const columns: readonly Column[] = [
  // Of the sidecar's last write of the entry; null if there was none.
  { name: "sidecar_revision", type: "bigint" },
  // The stamp of an external writer's write; null if the sidecar wrote last. While there is one, sidecar_revision and
  // sidecar_bytes are void: plugin_sidecar.external_revisions has those of the stamp.
  { name: "sidecar_write_id", type: "uuid", default: "gen_random_uuid()" },
  { name: "sidecar_created_at", type: "timestamptz", default: "now()" },
  { name: "sidecar_expires_at", type: "timestamptz" },
  // What the entry counts for.
  { name: "sidecar_bytes", type: "bigint" },
];

/** A trigger on `plugin_state`. */
export interface Trigger {
  readonly name: string;
  /** When it runs: all of its definition between the name and the condition, with the table for `%`. */
  readonly event: string;
  readonly execute: string;
}

/** They run for those who haven't said that they are a sidecar, for the length of their transaction. */
export const triggers: readonly Trigger[] = [
  {
    name: "plugin_sidecar_log_insert",
    event: "after insert on % for each row",
    execute: "plugin_sidecar.log_external_insert()",
  },
  {
    // Before: it stamps the row too.
    name: "plugin_sidecar_log_update",
    event: "before update on % for each row",
    execute: "plugin_sidecar.log_external_update()",
  },
  {
    name: "plugin_sidecar_log_delete",
    event: "after delete on % for each row",
    execute: "plugin_sidecar.log_external_delete()",
  },
  {
    name: "plugin_sidecar_log_truncate",
    event: "after truncate on % for each statement",
    execute: "plugin_sidecar.log_external_truncate()",
  },
];

/** An index on `plugin_state`. */
export interface Index {
  readonly name: string;
  readonly columns: string;
  /** For a table whose columns these are in a collation that doesn't order by bytes; always if there are none. */
  readonly unlessBytewise?: readonly string[];
}

export const indexes: readonly Index[] = [
  {
    // The sweep looks for expired entries. Entries without an expiry aren't in it, and their updates stay HOT.
    name: "plugin_sidecar_expiry_idx",
    columns: "(plugin_id, sidecar_expires_at) where sidecar_expires_at is not null",
  },
  {
    // List reads keys in byte order, which the unique index has only in collation "C".
    name: "plugin_sidecar_key_order_idx",
    columns: '(plugin_id, scope_kind, scope_id, namespace, state_key collate "C")',
    unlessBytewise: ["state_key"],
  },
  {
    // ListScopes goes from place to place in byte order. Without keys: PostgreSQL keeps each name once a page.
    name: "plugin_sidecar_scope_order_idx",
    columns: '(plugin_id, scope_kind, scope_id collate "C", namespace collate "C")',
    unlessBytewise: ["scope_id", "namespace"],
  },
];
