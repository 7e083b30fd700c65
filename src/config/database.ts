import { readFileSync } from "node:fs";
import { defaultDataDir } from "../embedded/data-dir.ts";
import { ExitCode, StartError, usageError } from "../start-error.ts";
import type { DatabaseConfig } from "./config.ts";
import type { OptionValues } from "./option.ts";
import { databaseOptions, migrationOptions } from "./options.ts";
import { redactSecrets } from "./redact.ts";
import { nameAsGiven, type Resolved, type Source } from "./resolve.ts";

/** `plugin add|list` don't migrate, and have no migration URL. */
type ResolvedDatabase = Resolved<typeof databaseOptions> & {
  readonly values: Partial<OptionValues<typeof migrationOptions>>;
  readonly sources: { readonly migrationDatabaseUrl?: Source };
};

/** The options that say which database, of which only one may be given. */
const places = ["databaseUrl", "databaseUrlFile", "dataDir"] as const;
const allOptions = { ...databaseOptions, ...migrationOptions };
type Place = (typeof places)[number];

/**
 * Finds out which database is meant: the flags decide; without one of them, the environment; without
 * both, the embedded one. Two on the same level contradict each other and are refused.
 */
export function readDatabase(resolved: ResolvedDatabase): {
  readonly database: DatabaseConfig;
  readonly warnings: readonly string[];
} {
  const place = placeOfDatabase(resolved);
  const warnings = [...overruledVariables(resolved, place), ...visiblePasswords(resolved)];
  if (place === undefined || place === "dataDir") {
    refuseMigrationUrl(resolved);
    const dataDir = resolved.values.dataDir ?? defaultDataDir();
    return { database: { kind: "embedded", dataDir }, warnings };
  }
  const { databaseUrl, databaseUrlFile, migrationDatabaseUrl } = resolved.values;
  const url = place === "databaseUrl" ? databaseUrl : readUrlFile(databaseUrlFile, resolved);
  if (url === undefined) throw new Error("the database URL is undefined though it was given");
  const migration =
    migrationDatabaseUrl === undefined ? {} : { migrationUrl: migrationDatabaseUrl };
  return { database: { kind: "url", url, ...migration }, warnings };
}

/** The database as it may be shown: without passwords. */
export function redactDatabase(database: DatabaseConfig): DatabaseConfig {
  if (database.kind === "embedded") return database;
  const { kind, url, migrationUrl } = database;
  const migration = migrationUrl === undefined ? {} : { migrationUrl: redactSecrets(migrationUrl) };
  return { kind, url: redactSecrets(url), ...migration };
}

function placeOfDatabase({ sources }: ResolvedDatabase): Place | undefined {
  for (const source of ["flag", "environment"] as const) {
    const [place, second] = places.filter((name) => sources[name] === source);
    if (place !== undefined && second !== undefined) {
      const names = [place, second].map((name) => nameAsGiven(databaseOptions[name], source));
      throw usageError(`${names.join(" and ")} each name a database; give one of them`);
    }
    if (place !== undefined) return place;
  }
  return undefined;
}

function overruledVariables({ sources }: ResolvedDatabase, place: Place | undefined): string[] {
  return places
    .filter((name) => name !== place && sources[name] === "environment")
    .map(
      (name) =>
        `${databaseOptions[name].env} is ignored: ${place && databaseOptions[place].flag} was given`,
    );
}

function visiblePasswords({ values, sources }: ResolvedDatabase): string[] {
  return (["databaseUrl", "migrationDatabaseUrl"] as const)
    .filter(
      (name) => sources[name] === "flag" && redactSecrets(values[name] ?? "") !== values[name],
    )
    .map((name) => {
      const { flag, env } = allOptions[name];
      return `the password in ${flag} is visible to everybody on this machine (ps); use ${env}`;
    });
}

function refuseMigrationUrl({ sources }: ResolvedDatabase): void {
  const source = sources.migrationDatabaseUrl;
  if (source === undefined || source === "default") return;
  const name = nameAsGiven(migrationOptions.migrationDatabaseUrl, source);
  throw usageError(
    `${name} needs --database-url (or DATABASE_URL) beside it: the embedded database has one role`,
  );
}

function readUrlFile(path: string | undefined, { sources }: ResolvedDatabase): string | undefined {
  if (path === undefined) return undefined;
  const name = nameAsGiven(databaseOptions.databaseUrlFile, sources.databaseUrlFile);
  const content = readTextFile(path, name).trim();
  const url = databaseOptions.databaseUrl.read([content]);
  if (url === undefined) {
    const { allowed } = databaseOptions.databaseUrl;
    throw usageError(`${name}: the content of ${path} must be ${allowed}`);
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
