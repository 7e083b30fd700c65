import type pg from "pg";
import { installedStateSchema } from "./migrate.ts";
import { ownSchema } from "./own-schema.ts";

/**
 * Whether the state is to be in tables of a host's that aren't there: it hasn't migrated for the first time
 * yet, or is just restoring them.
 */
export async function lacksHostTables(client: pg.Client, stateSchema: string): Promise<boolean> {
  if (stateSchema === ownSchema) return false;
  const { rows } = await client.query<{ lacking: boolean; installed: boolean }>(
    `select to_regclass($1) is null or to_regclass($2) is null as lacking,
            to_regclass('${ownSchema}.installation') is not null as installed`,
    [`"${stateSchema}".plugins`, `"${stateSchema}".plugin_state`],
  );
  const [row] = rows;
  if (row?.lacking !== true) return false;
  // A sidecar that was set up with another schema waits for nothing: that has to be put right.
  return !row.installed || (await installedStateSchema(client)) === stateSchema;
}
