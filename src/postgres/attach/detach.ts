import type pg from "pg";
import { type Connection, withClient } from "../connection.ts";
import { ownSchema } from "../own-schema.ts";
import { briefly, type Steps } from "./brief-lock.ts";
import { columns, indexes, triggers } from "./parts.ts";

/** What is lost when the sidecar is detached; and what stands in the way. */
export interface Losses {
  /** Connections of sidecars to this database. */
  readonly sidecars: number;
  /** Plugins that have revisions. */
  readonly plugins: number;
  /** Entries with a time to live that isn't over: they stay for ever. */
  readonly expiring: number;
  /** Entries that have expired, and are removed. */
  readonly expired: number;
  /** Answers that are kept for repeated requests. */
  readonly requests: number;
}

/** What detaching needs to know. */
export interface DetachOptions {
  readonly stateSchema: string;
  readonly signal: AbortSignal;
  readonly onProgress: (message: string) => void;
}

const countLosses = (table: string) => `
  select (select count(*) from pg_stat_activity
           where datname = current_database() and application_name = 'plugin-state-sidecar'
             and pid <> pg_backend_pid())::int as sidecars,
         (select count(*) from ${ownSchema}.plugin_revisions where revision > 0)::int as plugins,
         (select count(*) from ${table} where sidecar_expires_at > now())::int as expiring,
         (select count(*) from ${table} where sidecar_expires_at <= now())::int as expired,
         (select count(*) from ${ownSchema}.requests where expires_at > now())::int as requests`;

/** Says what detaching would take away. */
export async function lossesOf(connection: Connection, options: DetachOptions): Promise<Losses> {
  return await withClient(connection, (client) => losses(client, options), options.signal);
}

async function losses(client: pg.Client, { stateSchema }: DetachOptions): Promise<Losses> {
  const { rows } = await client.query<{ there: boolean }>(
    `select to_regclass('${ownSchema}.requests') is not null
            and exists (select from pg_attribute
                         where attrelid = to_regclass($1) and attname = 'sidecar_expires_at') as there`,
    [`"${stateSchema}".plugin_state`],
  );
  if (rows[0]?.there !== true) {
    return { sidecars: 0, plugins: 0, expiring: 0, expired: 0, requests: 0 };
  }
  const found = await client.query<Losses>(countLosses(`"${stateSchema}".plugin_state`));
  return found.rows[0] as Losses;
}

/**
 * Takes away all that is the sidecar's: expired entries, which nobody but the sidecar hides, then everything from
 * `plugin_state`, then its own schema. Can be cut off anywhere and run again.
 */
export async function detach(connection: Connection, options: DetachOptions): Promise<void> {
  const table = `"${options.stateSchema}".plugin_state`;
  await withClient(
    connection,
    async (client) => {
      const steps: Steps = { ...options, client };
      await client.query("set statement_timeout = 0; set lock_timeout = 0");
      await removeExpired(client, options);
      options.onProgress(`removing triggers, indexes and columns from ${table}`);
      await briefly(steps, table, [
        ...triggers.map(({ name }) => `drop trigger if exists ${name} on ${table}`),
      ]);
      for (const { name } of indexes) {
        options.signal.throwIfAborted();
        await client.query(`drop index concurrently if exists "${options.stateSchema}".${name}`);
      }
      const dropped = columns.map(({ name }) => `drop column if exists ${name}`);
      await briefly(steps, table, [`alter table ${table} ${dropped.join(", ")}`]);
      options.onProgress(`removing schema ${ownSchema}`);
      await briefly(steps, ownSchema, [`drop schema if exists ${ownSchema} cascade`]);
    },
    options.signal,
  );
}

/** In bounded steps, as the sweep does. Where part of the sidecar is gone already, none can be found. */
async function removeExpired(client: pg.Client, options: DetachOptions): Promise<void> {
  const { expired } = await losses(client, options);
  if (expired === 0) {
    return;
  }
  options.onProgress(`removing ${expired} expired entries`);
  const { rows } = await client.query<{ id: string }>(
    `select distinct plugin_id as id from "${options.stateSchema}".plugin_state where sidecar_expires_at <= now()`,
  );
  for (const { id } of rows) {
    let more = true;
    while (more) {
      options.signal.throwIfAborted();
      const step = await client.query<{ more: boolean }>(
        `select more from ${ownSchema}.sweep($1, 500)`,
        [id],
      );
      more = step.rows[0]?.more === true;
    }
  }
}
