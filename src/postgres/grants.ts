import pg from "pg";
import { type Connection, withClient } from "./connection.ts";
import { migrationLock } from "./migrate.ts";
import { ownSchema } from "./own-schema.ts";

/** What a role may do on one object, as `GRANT` names it. */
export interface Grant {
  readonly kind: "schema" | "table" | "function";
  readonly schema: string;
  /** Of a schema: its own name again. */
  readonly name: string;
  readonly privileges: readonly string[];
}

const read = ["SELECT"];
const take = ["SELECT", "DELETE"];
/** `FOR UPDATE` and `ON CONFLICT DO UPDATE` need UPDATE too. */
const write = ["SELECT", "INSERT", "UPDATE", "DELETE"];

const ownTables: Readonly<Record<string, readonly string[]>> = {
  plugin_revisions: write,
  external_writes: take,
  external_revisions: write,
  trigger_faults: read,
  requests: write,
  batches: write,
  installation: read,
  migrations: read,
};

/** Those that statements.ts names, and those that these call as the caller. Triggers run as their owner. */
const functions: readonly string[] = [
  "answer_rows",
  "attachment_problem",
  "begin_writes",
  "changed_value",
  "delete_range",
  "entry_bytes",
  "forget_plugin",
  "keep_answer",
  "large_value_bytes",
  "large_value_text",
  "list_entries",
  "list_scopes",
  "merge_patch",
  "microseconds",
  "next_plugin_to_sweep",
  "number_external_writes",
  "read_entries",
  "read_entry",
  "read_large_entries",
  "read_place",
  "remember_request",
  "remove_expired",
  "require_numbered",
  "set_entries",
  "settle_batch",
  "settle_external_writes",
  "sweep",
  "sweep_answers",
  "value_bytes",
  "value_text",
  "write_entries",
];

/**
 * All that the database role of a serving sidecar needs, and no more: it makes nothing, owns nothing, and
 * can't register a plugin. SQL for people, the sidecar's own grants and doctor's check are made from this.
 */
export function servingGrants(stateSchema: string): readonly Grant[] {
  const schemas = [...new Set([ownSchema, stateSchema])];
  const table = (schema: string, name: string, privileges: readonly string[]): Grant => ({
    kind: "table",
    schema,
    name,
    privileges,
  });
  return [
    ...schemas.map((name): Grant => {
      return { kind: "schema", schema: name, name, privileges: ["USAGE"] };
    }),
    table(stateSchema, "plugins", read),
    table(stateSchema, "plugin_state", write),
    ...Object.entries(ownTables).map(([name, privileges]) => table(ownSchema, name, privileges)),
    ...functions.map((name): Grant => {
      return { kind: "function", schema: ownSchema, name, privileges: ["EXECUTE"] };
    }),
  ];
}

/** The statements that grant these to a role, each with its semicolon, one for all functions. */
export function grantStatements(grants: readonly Grant[], role: string): string[] {
  const to = `to ${quote(role)};`;
  const ofFunctions = grants.filter(({ kind }) => kind === "function");
  const others = grants.filter(({ kind }) => kind !== "function");
  const statements = others.map((grant) => {
    const privileges = grant.privileges.join(", ").toLowerCase();
    return `grant ${privileges} on ${grant.kind} ${qualifiedName(grant)} ${to}`;
  });
  if (ofFunctions.length > 0) {
    const names = ofFunctions.map(qualifiedName).join(",\n  ");
    statements.push(`grant execute on function\n  ${names}\n  ${to}`);
  }
  return statements;
}

/** Grants in a few words: the first ones, and how many more. */
export function describeGrants(grants: readonly Grant[]): string {
  const described = grants
    .slice(0, mostDescribed)
    .map((grant) => `${grant.privileges.join(", ")} on ${grant.kind} ${qualifiedName(grant)}`);
  const others = grants.length - described.length;
  return [...described, ...(others > 0 ? [`${others} more`] : [])].join("; ");
}

const mostDescribed = 3;

/** A grant's object as SQL names it. */
function qualifiedName({ kind, schema, name }: Grant): string {
  return kind === "schema" ? quote(name) : `${quote(schema)}.${quote(name)}`;
}

/** Whether a role holds what is asked for; `held` is null where there is no such object. */
interface HeldRow {
  readonly ord: string;
  readonly privilege: string;
  readonly held: boolean | null;
}

// By oid: a name of ours would need USAGE on its schema, which may be what is missing.
const heldPrivileges = `
  select w.ord, w.privilege,
         case w.kind when 'schema' then has_schema_privilege($1::name, n.oid, w.privilege)
                     when 'table' then has_table_privilege($1::name, c.oid, w.privilege)
                     else has_function_privilege($1::name, p.oid, w.privilege) end as held
    from unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::text[])
         as w (ord, kind, schema, name, privilege)
    left join pg_namespace n on n.nspname = w.schema
    left join pg_class c on w.kind = 'table' and c.relnamespace = n.oid and c.relname = w.name
    left join pg_proc p on w.kind = 'function' and p.pronamespace = n.oid and p.proname = w.name`;

/**
 * Of these privileges those that a role doesn't have, directly or through another role; all of an
 * object that isn't there.
 */
export async function missingGrants(
  client: pg.Client,
  role: string,
  grants: readonly Grant[],
): Promise<Grant[]> {
  return await select(client, role, grants, (held) => held !== true);
}

/** Of these privileges those that a role has. */
export async function heldGrants(
  client: pg.Client,
  role: string,
  grants: readonly Grant[],
): Promise<Grant[]> {
  return await select(client, role, grants, (held) => held === true);
}

async function select(
  client: pg.Client,
  role: string,
  grants: readonly Grant[],
  isWanted: (held: boolean | null) => boolean,
): Promise<Grant[]> {
  const parts = grants.flatMap(({ kind, schema, name, privileges }, ord) =>
    privileges.map((privilege) => ({ ord, kind, schema, name, privilege })),
  );
  const { rows } = await client.query<HeldRow>(heldPrivileges, [
    role,
    parts.map(({ ord }) => ord),
    parts.map(({ kind }) => kind),
    parts.map(({ schema }) => schema),
    parts.map(({ name }) => name),
    parts.map(({ privilege }) => privilege),
  ]);
  const wanted = rows.filter(({ held }) => isWanted(held));
  return grants
    .map((grant, ord) => ({
      ...grant,
      privileges: grant.privileges.filter((privilege) =>
        wanted.some((row) => Number(row.ord) === ord && row.privilege === privilege),
      ),
    }))
    .filter(({ privileges }) => privileges.length > 0);
}

/**
 * Grants the role of a serving connection what it lacks, as the role that migrates. Any number of
 * sidecars may do it at once.
 */
export async function grantServing(
  migration: Connection,
  serving: Connection,
  stateSchema: string,
  signal?: AbortSignal,
): Promise<void> {
  const role = await withClient(serving, currentRole, signal);
  const grants = servingGrants(stateSchema);
  const grantMissing = async (client: pg.Client) => {
    if ((await missingGrants(client, role, grants)).length === 0) {
      return;
    }
    const statements = [
      "begin",
      // Two that grant on the same object at once would fail.
      `select pg_advisory_xact_lock(${migrationLock})`,
      ...grantStatements(grants, role),
      "commit",
    ];
    for (const statement of statements) {
      await client.query(statement);
    }
  };
  await withClient(migration, grantMissing, signal);
}

/** The role that a connection acts as. */
export async function currentRole(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ role: string }>("select current_user as role");
  return rows[0]?.role ?? "";
}

function quote(name: string): string {
  return pg.escapeIdentifier(name);
}
