import type pg from "pg";
import { scopeKinds } from "../../src/state/entry.ts";
import type { Name } from "./model.ts";

/** Writes the table by plain SQL, as the host's object-relational mapper does. */
export interface ForeignWriter {
  upsert(name: Name, valueJson: string): Promise<void>;
  /** Says whether the entry was there. */
  delete(name: Name): Promise<boolean>;
}

/**
 * @param query Of a pool, or of one client for a writer with a connection of its own.
 * @param pluginId The plugin in whose name it writes.
 */
export function foreignWriter(
  query: pg.Pool["query"],
  pluginId: string,
  schema = "plugin_sidecar",
): ForeignWriter {
  const columns = "plugin_id, scope_kind, scope_id, namespace, state_key";
  return {
    upsert: async (name, valueJson) => {
      await query(
        `insert into "${schema}".plugin_state (${columns}, value_json, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (${columns}) do update set value_json = $6, updated_at = $7`,
        [pluginId, ...namesOf(name), valueJson, new Date()],
      );
    },
    delete: async (name) => {
      const [kind, id, namespace, key] = namesOf(name);
      const isScope = id === null ? "scope_id is null" : "scope_id = $5";
      const { rowCount } = await query(
        `delete from "${schema}".plugin_state
          where plugin_id = $1 and scope_kind = $2 and namespace = $3 and state_key = $4 and ${isScope}`,
        [pluginId, kind, namespace, key, ...(id === null ? [] : [id])],
      );
      return rowCount === 1;
    },
  };
}

function namesOf({ scope, namespace, key }: Name) {
  return [scopeKinds[scope.kind - 1], scope.id || null, namespace || "default", key] as const;
}
