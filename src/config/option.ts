/**
 * One option: its flag, its environment variable, what it takes and what it does. Flags, help,
 * errors and docs/configuration.md are all made from these rows, so they can't disagree.
 */
export interface OptionSpec<T> {
  readonly flag: `--${string}`;
  /** What stands for the value in help, with its unit: `MS`, `BYTES`. Absent for a switch. */
  readonly placeholder?: string;
  /** Its environment variable; null for what belongs to one call only. */
  readonly env: string | null;
  /** What it does, a sentence. */
  readonly about: string;
  /** What is allowed, completing "must be …". */
  readonly allowed: string;
  /** What is allowed in the fewest words, where the sentence doesn't say it: `1 to 10`. */
  readonly domain?: string;
  /** What it is when nobody says anything. */
  readonly fallback: T;
  /** The fallback for people; absent when there is none. */
  readonly fallbackText?: string;
  /** True when it may be given more than once (in the environment: separated by commas). */
  readonly repeatable: boolean;
  /** True when its value must not be repeated in an error. */
  readonly secret: boolean;
  /** Reads the given texts (one, unless repeatable); undefined when a text isn't allowed. */
  read(texts: readonly string[]): T | undefined;
}

/** A set of options by their names in code. */
export type OptionTable = Readonly<Record<string, OptionSpec<unknown>>>;

/** The values of a table of options. */
export type OptionValues<Table extends OptionTable> = {
  readonly [Name in keyof Table]: Table[Name] extends OptionSpec<infer T> ? T : never;
};

interface Naming {
  readonly flag: `--${string}`;
  /** Where it isn't `PLUGIN_STATE_` and the flag's words; null: none. */
  readonly env?: string | null;
  readonly about: string;
}

interface Valued extends Naming {
  readonly placeholder: string;
}

/** Every environment variable of ours starts with it, but for `DATABASE_URL`. */
export const envPrefix = "PLUGIN_STATE_";

function envOf({ flag, env }: Naming): string | null {
  const words = flag.slice("--".length).replaceAll("-", "_").toUpperCase();
  return env === undefined ? envPrefix + words : env;
}

const switchWords: ReadonlyMap<string, boolean> = new Map([
  ["true", true],
  ["1", true],
  ["false", false],
  ["0", false],
]);

/** A switch: false unless given. In the environment `true` or `1`, `false` or `0`. */
export function toggle(naming: Naming): OptionSpec<boolean> {
  return {
    ...naming,
    env: envOf(naming),
    allowed: "true, 1, false or 0",
    fallback: false,
    repeatable: false,
    secret: false,
    read: ([text = ""]) => switchWords.get(text.toLowerCase()),
  };
}

/** A whole number between two bounds, both allowed. */
export function integer(
  spec: Valued & { fallback: number; min: number; max: number; fallbackText?: string },
): OptionSpec<number> {
  const { fallback, min, max, ...naming } = spec;
  return {
    ...naming,
    env: envOf(naming),
    allowed: `a whole number from ${min} to ${max}`,
    domain: `${min} to ${max}`,
    fallback,
    fallbackText: spec.fallbackText ?? String(fallback),
    repeatable: false,
    secret: false,
    read: ([text = ""]) => {
      const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
      return value >= min && value <= max ? value : undefined;
    },
  };
}

/** One of a few words. */
export function choice<const Word extends string>(
  spec: Valued & { fallback: Word; choices: readonly Word[] },
): OptionSpec<Word> {
  const { fallback, choices, ...naming } = spec;
  return {
    ...naming,
    env: envOf(naming),
    allowed: `one of ${choices.join(", ")}`,
    domain: choices.join(", "),
    fallback,
    fallbackText: fallback,
    repeatable: false,
    secret: false,
    read: ([text]) => choices.find((word) => word === text),
  };
}

interface TextRules {
  /** Completes "must be …". */
  readonly allowed: string;
  readonly accepts: (text: string) => boolean;
}

/** A text that is undefined unless given; `fallbackText` says what then happens. */
export function text(
  spec: Valued & TextRules & { secret?: boolean; fallbackText?: string },
): OptionSpec<string | undefined> {
  const { accepts, secret = false, ...rest } = spec;
  return {
    ...rest,
    env: envOf(spec),
    fallback: undefined,
    repeatable: false,
    secret,
    read: ([given = ""]) => (accepts(given) ? given : undefined),
  };
}

/** A text with a default. */
export function textWithDefault(
  spec: Valued & TextRules & { fallback: string },
): OptionSpec<string> {
  const { accepts, ...rest } = spec;
  return {
    ...rest,
    env: envOf(spec),
    fallbackText: spec.fallback,
    repeatable: false,
    secret: false,
    read: ([given = ""]) => (accepts(given) ? given : undefined),
  };
}

/** Several texts: the flag repeated, or one environment variable with commas between them. */
export function texts(
  spec: Valued & TextRules & { fallbackText: string },
): OptionSpec<readonly string[]> {
  const { accepts, ...rest } = spec;
  return {
    ...rest,
    env: envOf(spec),
    fallback: [],
    repeatable: true,
    secret: false,
    read: (given) => (given.every(accepts) ? given : undefined),
  };
}
