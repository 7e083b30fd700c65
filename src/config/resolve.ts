import { usageError } from "../start-error.ts";
import type { OptionSpec, OptionTable, OptionValues } from "./option.ts";

/** What the flags said, by option name; a switch that was given says `["true"]`. */
export type GivenFlags = Readonly<Record<string, readonly string[] | undefined>>;

/** The environment, as `process.env` is. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Who said what a value is. */
export type Source = "flag" | "environment" | "default";

/** The values of a table's options, and who said each. */
export interface Resolved<Table extends OptionTable> {
  readonly values: OptionValues<Table>;
  readonly sources: { readonly [Name in keyof Table]: Source };
}

/**
 * Reads every option of a table: a flag wins over the environment, the environment over the
 * default. An empty environment variable counts as unset.
 *
 * Throws a usage error that names the first wrong one as it was given, and what it must be.
 */
export function resolveOptions<Table extends OptionTable>(
  table: Table,
  flags: GivenFlags,
  environment: Environment,
): Resolved<Table> {
  const values: Record<string, unknown> = {};
  const sources: Record<string, Source> = {};
  for (const [name, spec] of Object.entries(table)) {
    const given = givenTexts(spec, flags[name], variableOf(spec, environment));
    values[name] = given.source === "default" ? spec.fallback : readGiven(spec, given);
    sources[name] = given.source;
  }
  // Both were filled with exactly the names of the table, each from its own row.
  return { values, sources } as Resolved<Table>;
}

/** The name of an option as the person wrote it: its flag or its environment variable. */
export function nameAsGiven(spec: OptionSpec<unknown>, source: Source): string {
  return source === "environment" && spec.env !== null ? spec.env : spec.flag;
}

function variableOf({ env }: OptionSpec<unknown>, environment: Environment): string | undefined {
  return env === null ? undefined : environment[env];
}

interface Given {
  readonly source: Source;
  readonly texts: readonly string[];
}

function givenTexts(
  spec: OptionSpec<unknown>,
  flag: readonly string[] | undefined,
  variable: string | undefined,
): Given {
  if (flag !== undefined) return { source: "flag", texts: flag };
  if (variable === undefined || variable === "") return { source: "default", texts: [] };
  const texts = spec.repeatable ? variable.split(",").map((part) => part.trim()) : [variable];
  return { source: "environment", texts };
}

function readGiven(spec: OptionSpec<unknown>, given: Given): unknown {
  const swallowed = given.source === "flag" && given.texts.find((text) => text.startsWith("--"));
  if (swallowed) throw usageError(`${spec.flag} needs a value, but ${swallowed} follows it`);
  const value = spec.read(given.texts);
  if (value === undefined) {
    const shown = spec.secret
      ? ""
      : `, not ${given.texts.map((t) => JSON.stringify(t)).join(", ")}`;
    throw usageError(`${nameAsGiven(spec, given.source)} must be ${spec.allowed}${shown}`);
  }
  return value;
}
