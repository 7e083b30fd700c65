import { ownSchema } from "../own-schema.ts";
import { type Examination, row } from "./check.ts";
import { command, quote, type Remedy, type Step, say, shellQuote, sql } from "./remedy.ts";

/** Who may migrate, as far as doctor's own role and the owner of things are concerned. */
interface Migrators {
  /** Whether the role of doctor's connection may. */
  readonly may: boolean;
  /** Who may, or could with little more. */
  readonly owner: string;
  readonly lacks_database: boolean;
  readonly lacks_schema: boolean;
  readonly lacks_tables: boolean;
  readonly table_owner: string | null;
}

const migrators = `
  with tables as (
    select c.relowner, c.relnamespace from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = 'plugin_state'),
  own as (select nspowner from pg_namespace where nspname = $2),
  owner as (
    select coalesce((select nspowner from own), (select relowner from tables), d.datdba) as oid
      from pg_database d where d.datname = current_database()),
  roles as (
    select r.oid, r.rolname, r.rolsuper,
           not exists (select from own) and not has_database_privilege(r.oid, current_database(), 'create')
             as lacks_database,
           exists (select from tables t where not has_schema_privilege(r.oid, t.relnamespace, 'create')) as lacks_schema,
           exists (select from tables t where not pg_has_role(r.oid, t.relowner, 'usage')) as lacks_tables,
           exists (select from own where not pg_has_role(r.oid, nspowner, 'usage')) as lacks_own
      from pg_roles r)
  select (select rolsuper or not (lacks_database or lacks_schema or lacks_tables or lacks_own)
            from roles where rolname = current_user) as may,
         o.rolname as owner, o.lacks_database, o.lacks_schema, o.lacks_tables,
         (select pg_get_userbyid(relowner) from tables) as table_owner
    from roles o where o.oid = (select oid from owner)`;

/**
 * How to migrate: with the owner's URL where doctor's own role may not.
 *
 * @param flags Of `migrate`.
 */
export async function migrateSteps(
  examination: Examination,
  ...flags: readonly string[]
): Promise<Remedy> {
  const found = await row<Migrators & Record<string, unknown>>(examination, migrators, [
    examination.stateSchema,
    ownSchema,
  ]);
  if (found.may) {
    return [command(examination, "migrate", ...flags)];
  }
  const granted = lackedGrants(examination, found);
  return [
    ...(granted.length > 0 ? [say("As a superuser, or as the owner of the database:")] : []),
    ...granted,
    say(
      `With the URL of role ${found.owner}, which may change the schema; PASSWORD stands for its password:`,
    ),
    command(
      examination,
      "migrate",
      ...flags,
      "--migration-database-url",
      shellQuote(ownersUrl(examination, found.owner)),
    ),
  ];
}

/** How to register a plugin: with the owner's URL where doctor's own role may not. */
export async function addPluginSteps(
  examination: Examination,
  ...words: readonly string[]
): Promise<Remedy> {
  const { may, owner } = await row<{ may: boolean; owner: string }>(
    examination,
    `select has_table_privilege(c.oid, 'insert') as may, pg_get_userbyid(c.relowner) as owner
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = $1 and c.relname = 'plugins'`,
    [examination.stateSchema],
  );
  if (may) {
    return [command(examination, "plugin", "add", ...words)];
  }
  const url = shellQuote(ownersUrl(examination, owner));
  const asOwner = { ...examination, databaseFlags: ["--database-url", url] };
  return [
    say(`With the URL of role ${owner}; PASSWORD stands for its password:`),
    command(asOwner, "plugin", "add", ...words),
  ];
}

function lackedGrants({ database, stateSchema }: Examination, found: Migrators): Step[] {
  const owner = quote(found.owner);
  return [
    ...(found.lacks_database
      ? [sql(`grant create on database ${quote(database)} to ${owner};`)]
      : []),
    ...(found.lacks_schema
      ? [sql(`grant create on schema ${quote(stateSchema)} to ${owner};`)]
      : []),
    ...(found.lacks_tables && found.table_owner !== null
      ? [sql(`grant ${quote(found.table_owner)} to ${owner};`)]
      : []),
  ];
}

/** The URL that was given, with another role in it. */
function ownersUrl({ connection, database }: Examination, owner: string): string {
  const { connectionString } = connection;
  const url = new URL(connectionString ?? `postgres://localhost/${encodeURIComponent(database)}`);
  url.searchParams.delete("user");
  url.searchParams.delete("password");
  url.username = encodeURIComponent(owner);
  url.password = "PASSWORD";
  return url.href;
}
