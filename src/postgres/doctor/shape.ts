import { installedStateSchema, missingMigrations } from "../migrate.ts";
import { ownSchema } from "../own-schema.ts";
import { type Examination, rows } from "./check.ts";
import { quote } from "./remedy.ts";

/** What there is of the tables and of the schema. */
export interface Shape {
  /** The schemas that have tables of the names and shape of the state's. */
  readonly places: readonly string[];
  /** Migrations of this release that haven't run. */
  readonly missing: readonly string[];
  /** Where the migrations put the state; undefined before the first. */
  readonly installed: string | undefined;
}

/**
 * Looks what there is.
 *
 * @throws {SchemaError} when a newer release has migrated; pg's error when the role may not look.
 */
export async function shapeOf(examination: Examination): Promise<Shape> {
  const { client } = examination;
  const missing = await missingMigrations(client);
  const installed = missing.length === 0 ? await installedStateSchema(client) : undefined;
  return { places: await findPlaces(examination), missing, installed };
}

/** The schemas with tables plugins and plugin_state; of any state schema, so without a right on them. */
export async function findPlaces(examination: Examination): Promise<string[]> {
  const found = await rows<{ schema: string }>(
    examination,
    `select n.nspname as schema from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind in ('r', 'p')
        and (c.relname = 'plugins' or c.relname = 'plugin_state' and exists (
               select from pg_attribute a where a.attrelid = c.oid and a.attname = 'state_key'))
      group by n.nspname having count(*) = 2
      order by n.nspname <> 'public', n.nspname`,
  );
  return found.map(({ schema }) => schema);
}

/** The table of the state, quoted. */
export function stateTable({ stateSchema }: Pick<Examination, "stateSchema">): string {
  return `${quote(stateSchema)}.plugin_state`;
}

/** The host's registry, quoted. */
export function pluginsTable({ stateSchema }: Pick<Examination, "stateSchema">): string {
  return `${quote(stateSchema)}.plugins`;
}

/** Whether the state is in tables of a host. */
export function isAttached({ stateSchema }: Pick<Examination, "stateSchema">): boolean {
  return stateSchema !== ownSchema;
}
