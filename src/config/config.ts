import type { LogLevel } from "../log.ts";
import type { ListenAddress } from "../rpc/listen-address.ts";
import type { StateBounds } from "../state/limits.ts";
import type { Permissions } from "../state/permissions.ts";
import { parseAddress } from "./address.ts";
import { readBindings } from "./bindings.ts";
import { type ResolvedDatabase, readDatabase, redactDatabase } from "./database.ts";
import { unknownVariables } from "./environment.ts";
import { readMetricsListen } from "./metrics-listen.ts";
import { serveOptions } from "./options.ts";
import { type Environment, type GivenFlags, resolveOptions } from "./resolve.ts";

/** All that `serve` was told, checked; nothing behind it reads a flag or the environment. */
export interface ServeConfig {
  readonly database: DatabaseConfig;
  /** The schema with `plugins` and `plugin_state`. */
  readonly stateSchema: string;
  /** False: check the schema's version and refuse one that doesn't fit. */
  readonly migrate: boolean;
  /** At least one, unless they are in a file; every address differs from the others. */
  readonly bindings: readonly BindingConfig[];
  /** The file with the bindings, read with {@link readConfigFile}; read again on SIGHUP. */
  readonly configFile?: string | undefined;
  /** An address for health alone, which may be reached from other machines. */
  readonly healthListen?: ListenAddress;
  /** True: listening where other machines can reach it is allowed. Descriptors, and names, are judged when bound. */
  readonly insecure: boolean;
  /** Most database connections of the process. */
  readonly poolSize: number;
  readonly databaseTimeoutMs: number;
  /** Most client connections of each listener. */
  readonly maxConnections: number;
  /** How long a call may be open. */
  readonly maxCallMs: number;
  /** The bounds of each binding's state. */
  readonly bounds: StateBounds;
  /** False: every call is a statement of its own. */
  readonly coalescing: boolean;
  readonly sweepIntervalMs: number;
  readonly drainTimeoutMs: number;
  /** True: a database that is away at start ends the process instead of being waited for. */
  readonly failFast: boolean;
  readonly exitWithParent: boolean;
  /** True: no connection is accepted before the sidecar serves. */
  readonly acceptWhenReady: boolean;
  readonly logLevel: LogLevel;
  readonly slowCallMs: number;
  /** Where metrics are served; undefined: nowhere. */
  readonly metricsListen?: ListenAddress | undefined;
}

/** The database to use: our own in a directory, or one that was given. */
export type DatabaseConfig = (
  | { readonly kind: "embedded"; readonly dataDir: string }
  | { readonly kind: "url"; readonly url: string; readonly migrationUrl?: string }
) & {
  /** False: statements without names. */
  readonly namedStatements?: boolean;
};

/** One listener, the plugin it serves, and what it allows to whom. */
export interface BindingConfig {
  /** A plugin's key or its UUID. */
  readonly plugin: string;
  readonly listen: ListenAddress;
  /** The tokens of which a call must have one; undefined: anybody who can connect may call. */
  readonly tokens?: TokenSource | undefined;
  /** TLS; undefined: in the clear. */
  readonly tls?: TlsFiles | undefined;
  /** Undefined allows everything. */
  readonly permissions?: Permissions | undefined;
  /** Bounds of this binding that differ from those of the process. */
  readonly bounds?: Partial<StateBounds> | undefined;
}

/** Where tokens come from: a file with one on each line, or a text, with the name it goes by. */
export type TokenSource =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "text"; readonly token: string; readonly name: string };

/** PEM files. With a client CA, clients must have a certificate of it. */
export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
  readonly clientCaFile?: string | undefined;
}

/** What a command that opens the database for a moment was told about it: `migrate`, `plugin add|list`. */
export interface DatabaseCommandConfig {
  readonly database: DatabaseConfig;
  readonly stateSchema: string;
}

/** A configuration, with sentences about what looks odd in it without being wrong. */
export interface Read<Config> {
  readonly config: Config;
  readonly warnings: readonly string[];
}

/** Reads the configuration of `serve`. Throws a StartError that says what is wrong. */
export function readServeConfig(flags: GivenFlags, environment: Environment): Read<ServeConfig> {
  const resolved = resolveOptions(serveOptions, flags, environment);
  const { values } = resolved;
  const { database, warnings } = readDatabase(resolved);
  const bindings = readBindings(resolved, database);
  const config: ServeConfig = {
    database,
    stateSchema: values.stateSchema,
    migrate: !values.noMigrate,
    bindings: bindings.config,
    configFile: values.config,
    ...(values.healthListen === undefined
      ? {}
      : { healthListen: parseAddress("--health-listen", values.healthListen) }),
    insecure: values.insecure,
    poolSize: values.databaseConnections,
    databaseTimeoutMs: values.databaseTimeoutMs,
    maxConnections: values.maxConnections,
    maxCallMs: values.maxCallMs,
    bounds: {
      maxValueBytes: values.maxValueBytes,
      rememberRequestsMs: values.requestIdSeconds * 1000,
      quotaEntries: values.quotaEntries || undefined,
      quotaBytes: values.quotaBytes || undefined,
    },
    coalescing: !values.noCoalescing,
    sweepIntervalMs: values.sweepIntervalMs,
    drainTimeoutMs: values.drainTimeoutMs,
    failFast: values.failFast,
    exitWithParent: values.exitWithParent,
    acceptWhenReady: values.acceptWhenReady,
    logLevel: values.logLevel,
    slowCallMs: values.slowCallMs,
    metricsListen: readMetricsListen(values.metricsListen, values.insecure),
  };
  const odd = [...warnings, ...bindings.warnings, ...unknownVariables(environment)];
  return { config: deepFreeze(config), warnings: odd };
}

/**
 * The database of `migrate` or `plugin add|list`, from their resolved options. Throws like
 * {@link readServeConfig}.
 */
export function readDatabaseCommand(
  resolved: ResolvedDatabase,
  environment: Environment,
): Read<DatabaseCommandConfig> {
  const { database, warnings } = readDatabase(resolved);
  const config: DatabaseCommandConfig = { database, stateSchema: resolved.values.stateSchema };
  return { config: deepFreeze(config), warnings: [...warnings, ...unknownVariables(environment)] };
}

/** The configuration as it may be logged: no password or token in it. */
export function redactConfig(config: ServeConfig): Record<string, unknown> {
  const bindings = config.bindings.map(({ tokens, ...binding }) => ({
    ...binding,
    tokens: tokens?.kind === "text" ? { kind: tokens.kind, name: tokens.name } : tokens,
  }));
  return { ...config, bindings, database: redactDatabase(config.database) };
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null) {
    for (const part of Object.values(value)) deepFreeze(part);
    Object.freeze(value);
  }
  return value;
}
