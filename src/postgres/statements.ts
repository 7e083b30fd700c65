/**
 * Every statement the sidecar sends while it serves. Its name is the prepared statement's name and
 * the label in metrics and logs. What takes several statements but should take one round trip is a
 * function in migrations/.
 */
export interface Statement {
  readonly name: string;
  readonly text: string;
}

const answerColumns = "ord, outcomes, revisions, plugin_revision, value, previous, meta";

/** A batch of writes, numbered. See migrations/0003. */
export const writeEntries: Statement = {
  name: "write_entries",
  text: `
    select ${answerColumns}
      from plugin_sidecar.write_entries(
             $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
             $22, $23, $24)`,
};

/** What became of a batch whose answer was lost. See migrations/0003. */
export const settleBatch: Statement = {
  name: "settle_batch",
  text: `
    select ${answerColumns}
      from plugin_sidecar.settle_batch($1, $2)`,
};

/** Single entries, in one snapshot. See migrations/0004. */
export const readEntries: Statement = {
  name: "read_entries",
  text: `
    select value, revision, created_us, updated_us, expires_us, plugin_revision
      from plugin_sidecar.read_entries($1, $2, $3, $4, $5, $6)
     order by ord`,
};

/** A page of one scope and namespace. See migrations/0004. */
export const listEntries: Statement = {
  name: "list_entries",
  text: `
    select key, value, revision, created_us, updated_us, expires_us, is_more
      from plugin_sidecar.list_entries($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
};

/** Whether the database takes writes: not on a standby, nor when it was made read-only. */
export const checkWritable: Statement = {
  name: "check_writable",
  text: "select not pg_is_in_recovery() and not current_setting('transaction_read_only')::boolean as writable",
};

/** The statements that name the host's registry, which is in the schema of the state. */
export function pluginStatements(stateSchema: string) {
  const plugins = `"${stateSchema}".plugins`;
  return {
    /** A plugin by key or id. */
    findPlugin: {
      name: "find_plugin",
      text: `
        select p.id, p.plugin_key
          from ${plugins} p
         where p.id::text = lower($1) or p.plugin_key = $1
         order by p.id::text = lower($1) desc
         limit 1`,
    },
    /** The counter of a plugin's revisions, for a plugin that was registered after the last start. */
    addCounter: {
      name: "add_counter",
      text: `
        with added as (
          insert into plugin_sidecar.plugin_revisions (plugin_id)
          select p.id from ${plugins} p where p.id = $1
          on conflict do nothing)
        select p.id from ${plugins} p where p.id = $1`,
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
