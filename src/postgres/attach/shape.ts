import type pg from "pg";
import { columns, type Index, indexes, triggers } from "./parts.ts";

/** What is on the host's table, and what of the sidecar's is missing there. */
export interface Shape {
  readonly missingColumns: readonly string[];
  /** All triggers are there and enabled, and none has noted a fault. */
  readonly isLogged: boolean;
  /** Every plugin's entries were counted since. */
  readonly isCounted: boolean;
  readonly missingIndexes: readonly Index[];
  /** Left behind by a build that was cut off. */
  readonly brokenIndexes: readonly string[];
}

const ask = `
  select array(select a.attname::text from pg_attribute a
                where a.attrelid = $1::regclass and a.attnum > 0 and not a.attisdropped) as columns,
         array(select t.tgname::text from pg_trigger t
                where t.tgrelid = $1::regclass and t.tgenabled in ('O', 'A')) as triggers,
         array(select c.relname::text from pg_index i join pg_class c on c.oid = i.indexrelid
                where i.indrelid = $1::regclass and i.indisvalid) as indexes,
         array(select c.relname::text from pg_index i join pg_class c on c.oid = i.indexrelid
                where i.indrelid = $1::regclass and not i.indisvalid) as broken,
         array(select a.attname::text from pg_attribute a join pg_collation c on c.oid = a.attcollation
                where a.attrelid = $1::regclass and c.collname not in ('C', 'POSIX')) as sorted,
         exists (select from plugin_sidecar.trigger_faults) as has_faults,
         exists (select from plugin_sidecar.installation where attached_at is not null) as is_counted`;

/** Looks at a table. The sidecar's own schema must be migrated. */
export async function shapeOf(client: pg.Client, table: string): Promise<Shape> {
  const { rows } = await client.query<{
    columns: string[];
    triggers: string[];
    indexes: string[];
    broken: string[];
    sorted: string[];
    has_faults: boolean;
    is_counted: boolean;
  }>(ask, [table]);
  const [found] = rows;
  if (found === undefined) {
    throw new Error("the database answered no rows");
  }
  const wanted = indexes.filter(
    ({ unlessBytewise }) => unlessBytewise?.some((name) => found.sorted.includes(name)) ?? true,
  );
  return {
    missingColumns: columns.map(({ name }) => name).filter((name) => !found.columns.includes(name)),
    isLogged: triggers.every(({ name }) => found.triggers.includes(name)) && !found.has_faults,
    isCounted: found.is_counted,
    missingIndexes: wanted.filter(({ name }) => !found.indexes.includes(name)),
    brokenIndexes: indexes.map(({ name }) => name).filter((name) => found.broken.includes(name)),
  };
}
