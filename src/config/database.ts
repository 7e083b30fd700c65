import { readFileSync } from "node:fs";
import { defaultDataDir } from "../embedded/data-dir.ts";
import { ExitCode, StartError, usageError } from "../start-error.ts";
import type { DatabaseConfig } from "./config.ts";
import type { OptionValues } from "./option.ts";
import { databaseOptions, migrationOptions } from "./options.ts";
import { redactSecrets } from "./redact.ts";
import { nameAsGiven, type Resolved, type Source } from "./resolve.ts";

/** What was said about the database; `plugin add|list` don't migrate and take no migration URL. */
export interface ResolvedDatabase extends Resolved<typeof databaseOptions> {
  readonly values: OptionValues<typeof databaseOptions> &
    Partial<OptionValues<typeof migrationOptions>>;
  readonly sources: Resolved<typeof databaseOptions>["sources"] & {
    readonly migrationDatabaseUrl?: Source;
  };
}

/** A database, with sentences about what looks odd in how it was named. */
export interface ReadDatabase {
  readonly database: DatabaseConfig;
  readonly warnings: readonly string[];
}

const options = { ...databaseOptions, ...migrationOptions };

/** The options that name a database, of which only one may be given. */
const places = ["databaseUrl", "databaseUrlFile", "dataDir"] as const;

/** The option that named the database, and who gave it. */
interface Place {
  readonly name: (typeof places)[number];
  readonly source: "flag" | "environment";
}

/**
 * Finds out which database is meant: the flags decide; without one of them, the environment; without
 * both, the embedded one. Two on the same level contradict each other and are refused.
 */
export function readDatabase(resolved: ResolvedDatabase): ReadDatabase {
  const place = placeOfDatabase(resolved);
  const warnings = [...overruledVariables(resolved, place), ...visiblePasswords(resolved)];
  const statements = resolved.values.noPreparedStatements ? { namedStatements: false } : {};
  if (place === undefined || place.name === "dataDir") {
    refuseMigrationUrl(resolved, place);
    const dataDir = resolved.values.dataDir ?? defaultDataDir();
    return { database: { kind: "embedded", dataDir, ...statements }, warnings };
  }
  const url = place.name === "databaseUrl" ? resolved.values.databaseUrl : urlInFile(resolved);
  if (url === undefined) throw new Error("the database URL is undefined though it was given");
  const migrationUrl = isOverruled(resolved.sources.migrationDatabaseUrl, place)
    ? undefined
    : resolved.values.migrationDatabaseUrl;
  const migration = migrationUrl === undefined ? {} : { migrationUrl };
  return { database: { kind: "url", url, ...migration, ...statements }, warnings };
}

/** The database as it may be shown: without passwords. */
export function redactDatabase(database: DatabaseConfig): DatabaseConfig {
  if (database.kind === "embedded") return database;
  const { url, migrationUrl } = database;
  const migration = migrationUrl === undefined ? {} : { migrationUrl: redactSecrets(migrationUrl) };
  return { ...database, url: redactSecrets(url), ...migration };
}

function placeOfDatabase({ sources }: ResolvedDatabase): Place | undefined {
  for (const source of ["flag", "environment"] as const) {
    const [name, second] = places.filter((place) => sources[place] === source);
    if (name !== undefined && second !== undefined) {
      const names = [name, second].map((place) => nameAsGiven(options[place], source));
      throw usageError(`${names.join(" and ")} each name a database; give one of them`);
    }
    if (name !== undefined) return { name, source };
  }
  return undefined;
}

/**
 * Whether a variable doesn't count because a flag named the database. That goes for the migration
 * URL too: left in the environment of another database, it would migrate that one.
 */
function isOverruled(source: Source | undefined, place: Place | undefined): boolean {
  return source === "environment" && place?.source === "flag";
}

function overruledVariables({ sources }: ResolvedDatabase, place: Place | undefined): string[] {
  if (place === undefined) return [];
  return ([...places, "migrationDatabaseUrl"] as const)
    .filter((name) => isOverruled(sources[name], place))
    .map((name) => `${options[name].env} is ignored: ${options[place.name].flag} was given`);
}

function visiblePasswords({ values, sources }: ResolvedDatabase): string[] {
  return (["databaseUrl", "migrationDatabaseUrl"] as const)
    .filter((name) => sources[name] === "flag" && hasPassword(values[name] ?? ""))
    .map((name) => {
      const { flag, env } = options[name];
      return `the password in ${flag} is visible to everybody on this machine (ps); use ${env}`;
    });
}

function hasPassword(url: string): boolean {
  return redactSecrets(url) !== url;
}

function refuseMigrationUrl({ sources }: ResolvedDatabase, place: Place | undefined): void {
  const source = sources.migrationDatabaseUrl ?? "default";
  if (source === "default" || isOverruled(source, place)) return;
  const name = nameAsGiven(options.migrationDatabaseUrl, source);
  throw usageError(
    `${name} needs --database-url (or DATABASE_URL) beside it: the embedded database has one role`,
  );
}

function urlInFile({ values, sources }: ResolvedDatabase): string | undefined {
  const path = values.databaseUrlFile;
  if (path === undefined) return undefined;
  const name = nameAsGiven(options.databaseUrlFile, sources.databaseUrlFile);
  const url = options.databaseUrl.read([readTextFile(path, name).trim()]);
  if (url === undefined) {
    throw usageError(`${name}: the content of ${path} must be ${options.databaseUrl.allowed}`);
  }
  return url;
}

function readTextFile(path: string, name: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    const denied = code === "EACCES" || code === "EPERM";
    throw new StartError("FILE_UNREADABLE", `${name}: can't read ${path} (${code})`, {
      exitCode: denied ? ExitCode.noPermission : ExitCode.configuration,
      cause: error,
    });
  }
}
