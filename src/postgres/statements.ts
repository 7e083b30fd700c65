/**
 * Every statement the sidecar sends while it serves. Its name is the prepared statement's name and
 * the label in metrics and logs. What takes several statements but should take one round trip is a
 * function in migrations/.
 */
export interface Statement {
  readonly name: string;
  readonly text: string;
  /** Rows are arrays of columns instead of objects, which costs half as much for many short rows. */
  readonly rowMode?: "array";
}

const answerColumns = "ord, outcomes, revisions, value, previous, meta";

/** A batch of writes, numbered. See migrations/0003. */
export const writeEntries: Statement = {
  name: "write_entries",
  text: `
    select ${answerColumns}
      from plugin_sidecar.write_entries(
             $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
             $22, $23, $24)`,
};

/** A batch of nothing but Sets that can't fail. See migrations/0006. */
export const setEntries: Statement = {
  name: "set_entries",
  text: `
    select ${answerColumns}
      from plugin_sidecar.set_entries($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
};

/** What became of a batch whose answer was lost. See migrations/0003. */
export const settleBatch: Statement = {
  name: "settle_batch",
  text: `
    select ${answerColumns}
      from plugin_sidecar.settle_batch($1, $2, $3)`,
};

const readColumns = "value, revision, created_us, updated_us, expires_us, plugin_revision";

/** Single entries, in one snapshot, without the values that are large. See migrations/0004. */
export const readEntries: Statement = {
  name: "read_entries",
  rowMode: "array",
  text: `
    select ${readColumns}
      from plugin_sidecar.read_entries($1, $2, $3, $4, $5)`,
};

/** Single entries of one scope and namespace, likewise; in the first row also when. See migrations/0007. */
export const readPlace: Statement = {
  name: "read_place",
  rowMode: "array",
  text: `
    select ${readColumns},
           case when plugin_revision is not null
                then plugin_sidecar.microseconds(statement_timestamp()) end as read_us
      from plugin_sidecar.read_place($1, $2, $3, $4, $5)`,
};

/** An entry alone, likewise. See migrations/0008. */
export const readEntry: Statement = {
  name: "read_entry",
  rowMode: "array",
  text: `
    select ${readColumns}
      from plugin_sidecar.read_entry($1, $2, $3, $4, $5)`,
};

/** Single entries with values of any size, in one snapshot. See migrations/0004. */
export const readLargeEntries: Statement = {
  name: "read_large_entries",
  rowMode: "array",
  text: `
    select ${readColumns}
      from plugin_sidecar.read_large_entries($1, $2, $3, $4, $5, $6)`,
};

/** A page of one scope and namespace. See migrations/0004. */
export const listEntries: Statement = {
  name: "list_entries",
  rowMode: "array",
  text: `
    select value, revision, created_us, updated_us, expires_us, key, is_more
      from plugin_sidecar.list_entries($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
};

/** A step of removing a range of entries. See migrations/0005. */
export const deleteRange: Statement = {
  name: "delete_range",
  text: `
    select is_reused, deleted, ended, revision
      from plugin_sidecar.delete_range($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
};

/** A page of the places that hold entries. See migrations/0005. */
export const listScopes: Statement = {
  name: "list_scopes",
  text: `
    select kind, id, namespace, entries, bytes, revision, is_more
      from plugin_sidecar.list_scopes($1, $2, $3, $4, $5, $6)`,
};

/** A step of removing a plugin's expired entries. See migrations/0003. */
export const sweep: Statement = {
  name: "sweep",
  text: "select removed, more from plugin_sidecar.sweep($1, $2)",
};

/** A step of forgetting answers that nobody can ask for any more. See migrations/0003. */
export const sweepAnswers: Statement = {
  name: "sweep_answers",
  text: "select removed, more from plugin_sidecar.sweep_answers($1, $2)",
};

/**
 * A step of giving a plugin's external writes their revisions: in answer to a statement that found some without.
 * Makes the plugin's counter if there is none. See migrations/0002.
 */
export const settleExternalWrites: Statement = {
  name: "settle_external_writes",
  text: "select is_registered, more from plugin_sidecar.settle_external_writes($1, false)",
};

/** The same for all that there are, as the sweep does it. */
export const sweepExternalWrites: Statement = {
  name: "sweep_external_writes",
  text: "select 0::bigint as removed, more from plugin_sidecar.settle_external_writes($1, true)",
};

/** A step of removing what is kept for a plugin that the host has no more. See migrations/0002. */
export const forgetPlugin: Statement = {
  name: "forget_plugin",
  text: "select 0::bigint as removed, plugin_sidecar.forget_plugin($1, $2) as more",
};

/** The next plugin that the sweep has to look at, though this process doesn't serve it. See migrations/0002. */
export const nextPluginToSweep: Statement = {
  name: "next_plugin_to_sweep",
  text: "select plugin_sidecar.next_plugin_to_sweep($1) as id",
};

/** What begins, ends and undoes a transaction of several statements. */
export const begin: Statement = { name: "begin", text: "begin isolation level read committed" };
export const commit: Statement = { name: "commit", text: "commit" };
export const rollback: Statement = { name: "rollback", text: "rollback" };

/**
 * Whether the database takes writes: not on a standby, nor when it was made read-only; whether it has our tables:
 * one that is being restored may not have them yet; and what keeps us from knowing all that is written, as a
 * sentence (migrations/0002).
 */
export const checkWritable: Statement = {
  name: "check_writable",
  text: `
    select not pg_is_in_recovery() and not current_setting('transaction_read_only')::boolean as writable,
           to_regclass('plugin_sidecar.plugin_revisions') is not null as migrated,
           (select plugin_sidecar.attachment_problem()) as problem`,
};

/**
 * What a session is told when its connection opens, so that one whose client vanished doesn't go on
 * waiting in the database, perhaps with locks. One that waits for a lock, or is at work, looks every
 * 2 s whether its client is still there; and a network that swallows everything is noticed in 30 s rather
 * than in hours. None of it changes what a statement does, so behind a pooler, which shares
 * sessions, it harms nobody. Other time-outs would.
 */
export const prepareSession: Statement = {
  name: "prepare_session",
  text: `
    select set_config('client_connection_check_interval', '2s', false),
           set_config('tcp_keepalives_idle', '15', false),
           set_config('tcp_keepalives_interval', '5', false),
           set_config('tcp_keepalives_count', '3', false),
           set_config('tcp_user_timeout', '30s', false)`,
};

/**
 * Whether the server is a standby, and which of its processes answers. A primary doesn't become one while
 * it has sessions. The settings last as long as the message: the role's may leave it no time to be compiled.
 */
export const checkStandby: Statement = {
  name: "check_standby",
  text: `
    set local statement_timeout = 0;
    set local jit = off;
    select pg_is_in_recovery() as standby, pg_backend_pid() as pid`,
};

/** The statements that name the host's registry, which is in the schema of the state. */
export function pluginStatements(stateSchema: string) {
  const plugins = `"${stateSchema}".plugins`;
  return {
    /** Plugins by id and by key. */
    findPlugins: {
      name: "find_plugins",
      text: `
        select p.id, p.plugin_key
          from ${plugins} p
         where p.id = any ($1::uuid[]) or p.plugin_key = any ($2::text[])`,
    },
    /** Registers a plugin; a key that is registered keeps what it has. */
    addPlugin: {
      name: "add_plugin",
      text: `
        insert into ${plugins} (id, plugin_key, package_name, version, manifest_json, status)
        values (coalesce($1, gen_random_uuid()), $2, $3, $4,
                jsonb_build_object('id', $2::text, 'capabilities',
                  jsonb_build_array('plugin.state.read', 'plugin.state.write')), 'ready')
        on conflict do nothing`,
    },
    /** Every plugin, by key. */
    listPlugins: {
      name: "list_plugins",
      text: `
        select p.id, p.plugin_key, p.version, p.status, coalesce(r.revision, 0) as revision
          from ${plugins} p left join plugin_sidecar.plugin_revisions r on r.plugin_id = p.id
         order by p.plugin_key collate "C"`,
    },
  } satisfies Record<string, Statement>;
}
