import { defaultDataDir } from "../embedded/data-dir.ts";
import { usageError } from "../start-error.ts";
import type { DatabaseConfig } from "./config.ts";
import type { OptionValues } from "./option.ts";
import { databaseOptions, migrationOptions } from "./options.ts";
import { redactSecrets } from "./redact.ts";
import { nameAsGiven, type Resolved } from "./resolve.ts";
import { readTextFile } from "./text-file.ts";

/** What was said about the database; `plugin add|list` don't migrate and take no migration URL. */
export interface ResolvedDatabase extends Resolved<typeof databaseOptions> {
  readonly values: OptionValues<typeof databaseOptions> &
    Partial<OptionValues<typeof migrationOptions>>;
  readonly sources: Resolved<typeof databaseOptions>["sources"] &
    Partial<Resolved<typeof migrationOptions>["sources"]>;
}

/** A database, with sentences about what looks odd in how it was named. */
export interface ReadDatabase {
  readonly database: DatabaseConfig;
  readonly warnings: readonly string[];
}

const options = { ...databaseOptions, ...migrationOptions };

/** The options that name a database, of which only one may be given. */
const places = ["databaseUrl", "databaseUrlFile", "dataDir"] as const;

/** Those that name it for migrations; again one may be given. */
const migrationPlaces = ["migrationDatabaseUrl", "migrationDatabaseUrlFile"] as const;

/** The option that named a database, and who gave it. */
interface Place<Name extends keyof typeof options> {
  readonly name: Name;
  readonly source: "flag" | "environment";
}

/**
 * Finds out which database is meant: the flags decide; without one of them, the environment; without
 * both, the embedded one. Two on the same level contradict each other and are refused. What
 * migrations use is found the same way.
 */
export function readDatabase(resolved: ResolvedDatabase): ReadDatabase {
  const place = placeAmong(places, resolved, ["flag", "environment"]);
  // The URL for migrations belongs to the database: left in the environment of another one, it would
  // migrate that.
  const counting =
    place?.source === "flag" ? (["flag"] as const) : (["flag", "environment"] as const);
  const migrationPlace = placeAmong(migrationPlaces, resolved, counting);
  const warnings = [
    ...overruledVariables(resolved, place, migrationPlace),
    ...visiblePasswords(resolved),
  ];
  const statements = resolved.values.noPreparedStatements ? { namedStatements: false } : {};
  if (place === undefined || place.name === "dataDir") {
    refuseMigrationUrl(migrationPlace);
    const dataDir = resolved.values.dataDir ?? defaultDataDir();
    return { database: { kind: "embedded", dataDir, ...statements }, warnings };
  }
  const url = urlAt(place, resolved);
  const migration =
    migrationPlace === undefined ? {} : { migrationUrl: urlAt(migrationPlace, resolved) };
  return { database: { kind: "url", url, ...migration, ...statements }, warnings };
}

/** The database as it may be shown: without passwords. */
export function redactDatabase(database: DatabaseConfig): DatabaseConfig {
  if (database.kind === "embedded") return database;
  const { url, migrationUrl } = database;
  const migration = migrationUrl === undefined ? {} : { migrationUrl: redactSecrets(migrationUrl) };
  return { ...database, url: redactSecrets(url), ...migration };
}

/** Of the options that name the same thing the one that counts: of the first source that gave one. */
function placeAmong<Name extends keyof typeof options>(
  names: readonly Name[],
  { sources }: ResolvedDatabase,
  counting: readonly Place<Name>["source"][],
): Place<Name> | undefined {
  for (const source of counting) {
    const [name, second] = names.filter((place) => sources[place] === source);
    if (name !== undefined && second !== undefined) {
      const given = [name, second].map((place) => nameAsGiven(options[place], source));
      throw usageError(`${given.join(" and ")} each name a database; give one of them`);
    }
    if (name !== undefined) return { name, source };
  }
  return undefined;
}

/** Variables that don't count because a flag named the database, or the one for migrations. */
function overruledVariables(
  { sources }: ResolvedDatabase,
  place: Place<(typeof places)[number]> | undefined,
  migrationPlace: Place<(typeof migrationPlaces)[number]> | undefined,
): string[] {
  const ignored = (
    names: readonly (keyof typeof options)[],
    by: Place<keyof typeof options> | undefined,
  ) =>
    by?.source === "flag"
      ? names
          .filter((name) => sources[name] === "environment")
          .map((name) => `${options[name].env} is ignored: ${options[by.name].flag} was given`)
      : [];
  const both = ignored([...places, ...migrationPlaces], place);
  return both.length > 0 ? both : ignored(migrationPlaces, migrationPlace);
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

function refuseMigrationUrl(given: Place<(typeof migrationPlaces)[number]> | undefined): void {
  if (given === undefined) return;
  const name = nameAsGiven(options[given.name], given.source);
  throw usageError(
    `${name} needs --database-url (or DATABASE_URL) beside it: the embedded database has one role`,
  );
}

/** What a text option holds, or the URL in the file that another names. */
function urlAt(
  { name, source }: Place<Exclude<keyof typeof options, "noPreparedStatements">>,
  { values }: ResolvedDatabase,
): string {
  const text = values[name];
  if (text === undefined) throw new Error(`${name} is undefined though it was given`);
  if (name !== "databaseUrlFile" && name !== "migrationDatabaseUrlFile") return text;
  const given = nameAsGiven(options[name], source);
  const url = options.databaseUrl.read([readTextFile(text, given).trim()]);
  if (url === undefined) {
    throw usageError(`${given}: the content of ${text} must be ${options.databaseUrl.allowed}`);
  }
  return url;
}
