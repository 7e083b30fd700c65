import type { Connection } from "../connection.ts";
import { withClient } from "../connection.ts";
import { briefly, type Steps } from "./brief-lock.ts";
import { columns, type Trigger, triggers } from "./parts.ts";
import { type Shape, shapeOf } from "./shape.ts";

/** What attaching needs to know. */
export interface AttachOptions {
  readonly stateSchema: string;
  readonly signal: AbortSignal;
  /** Told what is being done: a sentence for a person. */
  readonly onProgress: (message: string) => void;
  /** Counts everything again, and begins a new epoch, also if nothing is missing. */
  readonly anew?: boolean;
}

/**
 * Puts on `plugin_state` what of the sidecar's is missing there, and counts the entries of all plugins. Says whether
 * anything was to be done.
 *
 * The host goes on meanwhile: locks are held for milliseconds, indexes are built concurrently, and plugins are counted
 * one by one. Every step looks at what is there, so that it can be cut off anywhere and run again. For one caller at
 * a time, and not inside a transaction.
 */
export async function attach(connection: Connection, options: AttachOptions): Promise<boolean> {
  const table = `"${options.stateSchema}".plugin_state`;
  return await withClient(
    connection,
    async (client) => {
      const shape = await shapeOf(client, table);
      if (isAttached(shape) && options.anew !== true) {
        return false;
      }
      const steps: Steps = { ...options, client };
      // Without parallel workers: the host needs the other processors.
      await client.query(
        `set statement_timeout = 0; set lock_timeout = 0; set idle_in_transaction_session_timeout = 0;
         set default_transaction_isolation = 'read committed'; set synchronous_commit = on;
         set max_parallel_maintenance_workers = 0`,
      );
      await attachTable(steps, table, shape, options.anew === true);
      await buildIndexes(steps, table, shape);
      await countPlugins(steps);
      return true;
    },
    options.signal,
  );
}

/** Whether nothing is missing. */
export function isAttached(shape: Shape): boolean {
  return (
    shape.missingColumns.length === 0 &&
    shape.isLogged &&
    shape.isCounted &&
    shape.missingIndexes.length === 0
  );
}

/**
 * Columns and triggers. With the triggers a new attachment begins: while writers are kept out, so that each write
 * was either done before, and will be counted, or is logged.
 */
async function attachTable(
  steps: Steps,
  table: string,
  { missingColumns, isLogged }: Shape,
  anew: boolean,
): Promise<void> {
  if (missingColumns.length > 0) {
    steps.onProgress(`adding columns to ${table}`);
    await briefly(steps, table, [
      `alter table ${table} ${columns.map(({ name, type }) => `add column if not exists ${name} ${type}`).join(", ")}`,
    ]);
  }
  if (missingColumns.length > 0 || !isLogged || anew) {
    steps.onProgress(`adding triggers to ${table}`);
    await briefly(steps, table, [
      // Defaults need the strongest lock there is, for a moment.
      `alter table ${table} ${defaults().join(", ")}`,
      ...triggers.flatMap((trigger) => createTrigger(trigger, table)),
      "select plugin_sidecar.begin_attachment()",
    ]);
  }
}

function defaults(): string[] {
  return columns.flatMap(({ name, default: value }) =>
    value === undefined ? [] : `alter column ${name} set default ${value}`,
  );
}

function createTrigger({ name, event, execute }: Trigger, table: string): string[] {
  const condition = "current_setting('plugin_sidecar.writer', true) is distinct from 'sidecar'";
  return [
    `create or replace trigger ${name} ${event.replace("%", table)} when (${condition}) execute function ${execute}`,
    `alter table ${table} enable trigger ${name}`,
  ];
}

/** One statement each, outside a transaction: readers and writers go on. */
async function buildIndexes(
  { client, signal, onProgress }: Steps,
  table: string,
  { missingIndexes, brokenIndexes }: Shape,
): Promise<void> {
  const schema = table.slice(0, table.lastIndexOf("."));
  for (const { name, columns: indexed } of missingIndexes) {
    signal.throwIfAborted();
    if (brokenIndexes.includes(name)) {
      await client.query(`drop index concurrently if exists ${schema}.${name}`);
    }
    onProgress(`building index ${name}`);
    await client.query(`create index concurrently if not exists ${name} on ${table} ${indexed}`);
  }
}

/** A plugin a transaction, which holds up that plugin's calls and nobody else. */
async function countPlugins({ client, signal, onProgress }: Steps): Promise<void> {
  for (let counted = 0; ; counted++) {
    signal.throwIfAborted();
    const { rows } = await client.query<{ id: string | null }>(
      "select plugin_sidecar.attach_next_plugin() as id",
    );
    if (rows[0]?.id == null) {
      return;
    }
    onProgress(`counted the entries of plugin ${rows[0].id}, ${counted + 1} done`);
  }
}
