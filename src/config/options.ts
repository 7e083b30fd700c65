import type { LogLevel } from "../log.ts";
import { defaultMaxCallMs, defaultMaxConnections } from "../rpc/default-bounds.ts";
import { defaultMaxValueBytes } from "../state/limits.ts";
import { capabilities } from "../state/permissions.ts";
import { allowedScopeRule, isCapability, parseAllowedScope } from "./allowed.ts";
import * as limits from "./limits.ts";
import { choice, integer, text, texts, textWithDefault, toggle } from "./option.ts";
import { isPluginName, isUuid, pluginNameRule } from "./plugin-name.ts";
import { isToken, maxTokenLength, minTokenLength } from "./token.ts";

const logLevels: readonly LogLevel[] = [
  "trace",
  "debug",
  "info",
  "warn",
  "error",
  "fatal",
  "silent",
];

/** `defaultDataDir()` in words that are true on every machine. */
const dataDirText =
  "~/.local/state/plugin-state on Linux ($XDG_STATE_HOME/plugin-state if set), ~/Library/Application Support/plugin-state on macOS, %LOCALAPPDATA%\\plugin-state on Windows, /var/lib/plugin-state as root";

const notEmpty = (given: string) => given.trim() !== "";

const databaseUrlRules = {
  placeholder: "URL",
  allowed:
    "a PostgreSQL URL: postgres://USER:PASSWORD@HOST:PORT/DATABASE, special characters of the password percent-encoded",
  accepts: isPostgresUrl,
  secret: true,
};

const fileRules = {
  placeholder: "FILE",
  allowed: "the path of a file",
  accepts: notEmpty,
};

/** Where the state is kept: of every command that opens a database. */
export const databaseOptions = {
  databaseUrl: text({
    ...databaseUrlRules,
    flag: "--database-url",
    env: "DATABASE_URL",
    about:
      "The PostgreSQL database (15 or newer). Without one, an embedded PostgreSQL runs in --data-dir. A password on the command line shows in `ps`: prefer the environment or a file.",
  }),
  databaseUrlFile: text({
    ...fileRules,
    flag: "--database-url-file",
    about: "A file with the database URL in it, instead of --database-url.",
  }),
  dataDir: text({
    placeholder: "DIR",
    allowed: "the path of a directory",
    accepts: notEmpty,
    flag: "--data-dir",
    about: "Where the embedded PostgreSQL keeps its files, when no database is given.",
    fallbackText: dataDirText,
  }),
  stateSchema: textWithDefault({
    placeholder: "NAME",
    allowed: `a schema name: letters, digits and _, not starting with a digit or pg_, at most ${limits.maxSchemaNameBytes} characters`,
    accepts: isSchemaName,
    fallback: limits.defaultStateSchema,
    flag: "--state-schema",
    about:
      "The schema with the tables plugins and plugin_state. `public` attaches to tables that Paperclip made there.",
  }),
  noPreparedStatements: toggle({
    flag: "--no-prepared-statements",
    about:
      "Send statements without names: for poolers that lose prepared statements between transactions, such as PgBouncer before 1.21 in transaction mode. Each is then parsed anew.",
  }),
};

/** Of the commands that may change the schema. */
export const migrationOptions = {
  migrationDatabaseUrl: text({
    ...databaseUrlRules,
    flag: "--migration-database-url",
    about: "The same database as a role that may change the schema, used for migrations only.",
    fallbackText: "the database URL",
  }),
  migrationDatabaseUrlFile: text({
    ...fileRules,
    flag: "--migration-database-url-file",
    about: "A file with that URL in it, instead of --migration-database-url.",
  }),
};

/** Of `serve`. */
export const serveOptions = {
  plugin: texts({
    placeholder: "KEY",
    allowed: pluginNameRule,
    accepts: isPluginName,
    fallbackText: `${limits.demoPlugin} with the embedded database; otherwise it must be given`,
    flag: "--plugin",
    about:
      "The plugin (key or UUID) that the listener serves. Repeat it, with a --listen each, to serve several.",
  }),
  listen: texts({
    placeholder: "ADDR",
    allowed: "HOST:PORT, [IPV6]:PORT, unix:/PATH or fd:N",
    accepts: notEmpty,
    fallbackText: limits.defaultListenAddress,
    flag: "--listen",
    about:
      "Where to listen: HOST:PORT (port 0 takes a free one), unix:/PATH or fd:N. The first --listen belongs to the first --plugin, and so on.",
  }),
  config: text({
    ...fileRules,
    flag: "--config",
    about:
      "A YAML or JSON file with the bindings (see below), instead of --plugin, --listen and what belongs to them. SIGHUP reads it again.",
  }),
  token: text({
    placeholder: "TOKEN",
    allowed: `${minTokenLength} to ${maxTokenLength} characters of printable ASCII without spaces`,
    accepts: isToken,
    secret: true,
    flag: "--token",
    about:
      "The token that every call must carry, as metadata `authorization: Bearer TOKEN`. On the command line it shows in `ps`: prefer the environment or a file.",
    fallbackText: "none: whoever can connect may call",
  }),
  tokenFile: text({
    ...fileRules,
    flag: "--token-file",
    about:
      "A file with the token, instead of --token. It may hold several, one on each line, all of them good; a change counts within 2 seconds, without a restart.",
  }),
  tlsCertFile: text({
    ...fileRules,
    flag: "--tls-cert-file",
    about:
      "Serve TLS with the certificate, and those up to its CA, in this PEM file. A change counts within 2 seconds.",
    fallbackText: "no TLS",
  }),
  tlsKeyFile: text({
    ...fileRules,
    flag: "--tls-key-file",
    about: "The PEM file with the key of --tls-cert-file.",
  }),
  tlsClientCaFile: text({
    ...fileRules,
    flag: "--tls-client-ca-file",
    about: "Demand of clients a certificate of a CA in this PEM file (mTLS).",
    fallbackText: "no client needs a certificate",
  }),
  capability: texts({
    placeholder: "NAME",
    allowed: `one of ${capabilities.join(", ")}`,
    accepts: isCapability,
    fallbackText: capabilities.join(", "),
    flag: "--capability",
    about:
      "What the listeners allow. Repeat it for both. Writing doesn't imply reading: Update and return_previous need both.",
  }),
  scope: texts({
    placeholder: "KIND[:ID]",
    allowed: allowedScopeRule,
    accepts: (given) => parseAllowedScope(given) !== undefined,
    fallbackText: "every scope",
    flag: "--scope",
    about: "A scope that the listeners allow: one, or all of a kind. Repeat it for several.",
  }),
  healthListen: text({
    placeholder: "ADDR",
    allowed: "HOST:PORT, [IPV6]:PORT, unix:/PATH or fd:N",
    accepts: notEmpty,
    flag: "--health-listen",
    about:
      "Where to serve health too (grpc.health.v1), and nothing else: no state can be had there, so it may be an address that other machines reach, like 0.0.0.0:50052, and needs no --insecure. For probes that can't reach --listen.",
  }),
  insecure: toggle({
    flag: "--insecure",
    about:
      "Allow listening on other than loopback addresses without TLS, or with TLS but neither token nor client certificates. Whoever reaches the port then reads and writes the plugin's state.",
  }),
  ...databaseOptions,
  ...migrationOptions,
  noMigrate: toggle({
    flag: "--no-migrate",
    about: "Don't migrate at start; refuse a schema that is too old or too new.",
  }),
  databaseConnections: integer({
    placeholder: "N",
    min: 1,
    max: limits.maxDatabaseConnections,
    fallback: limits.defaultDatabaseConnections,
    flag: "--database-connections",
    about: "Most database connections this process holds.",
  }),
  databaseTimeoutMs: integer({
    placeholder: "MS",
    min: limits.minDatabaseTimeoutMs,
    max: limits.maxDatabaseTimeoutMs,
    fallback: limits.defaultDatabaseTimeoutMs,
    flag: "--database-timeout-ms",
    about: "How long one statement may take, in milliseconds.",
  }),
  failFast: toggle({
    flag: "--fail-fast",
    about:
      "Exit with 69 when the database can't be reached at start, or the host hasn't made its tables yet, instead of waiting for it.",
  }),
  maxValueBytes: integer({
    placeholder: "BYTES",
    min: limits.minMaxValueBytes,
    max: limits.maxMaxValueBytes,
    fallback: defaultMaxValueBytes,
    fallbackText: `${defaultMaxValueBytes} (${defaultMaxValueBytes / 1024 ** 2} MiB)`,
    flag: "--max-value-bytes",
    about: "The largest value a plugin may store, in bytes of JSON text.",
  }),
  maxConnections: integer({
    placeholder: "N",
    min: 1,
    max: limits.maxMaxConnections,
    fallback: defaultMaxConnections,
    flag: "--max-connections",
    about: "Most client connections of each listener; one more is closed at once.",
  }),
  maxCallMs: integer({
    placeholder: "MS",
    min: limits.minMaxCallMs,
    max: limits.maxMaxCallMs,
    fallback: defaultMaxCallMs,
    flag: "--max-call-ms",
    about:
      "How long a call may be open, its request and reply included, in milliseconds; then it ends with DEADLINE_EXCEEDED. Streams that wait for news, such as health's Watch, may be open for longer.",
  }),
  quotaEntries: integer({
    placeholder: "N",
    min: 0,
    max: limits.maxQuota,
    fallback: 0,
    fallbackText: "0 (no limit)",
    flag: "--quota-entries",
    about: "How many entries each plugin may have.",
  }),
  quotaBytes: integer({
    placeholder: "BYTES",
    min: 0,
    max: limits.maxQuota,
    fallback: 0,
    fallbackText: "0 (no limit)",
    flag: "--quota-bytes",
    about:
      "How large the entries of each plugin may be together: bytes of scope id, namespace, key and JSON text.",
  }),
  requestIdSeconds: integer({
    placeholder: "S",
    min: 1,
    max: limits.maxRequestIdSeconds,
    fallback: limits.defaultRequestIdSeconds,
    flag: "--request-id-seconds",
    about: "How long a write with a request_id is remembered, in seconds.",
  }),
  sweepIntervalMs: integer({
    placeholder: "MS",
    min: limits.minSweepIntervalMs,
    max: limits.maxSweepIntervalMs,
    fallback: limits.defaultSweepIntervalMs,
    flag: "--sweep-interval-ms",
    about:
      "How often entries whose time to live is over are looked for, to be removed, in milliseconds. Nobody sees them meanwhile.",
  }),
  noCoalescing: toggle({
    flag: "--no-coalescing",
    about:
      "Send a statement for each call instead of one for all that wait. Slower; for measuring and for finding faults.",
  }),
  drainTimeoutMs: integer({
    placeholder: "MS",
    min: 0,
    max: limits.maxDrainTimeoutMs,
    fallback: limits.defaultDrainTimeoutMs,
    flag: "--drain-timeout-ms",
    about: "How long calls in flight may take to finish after a signal to stop, in milliseconds.",
  }),
  exitWithParent: toggle({
    flag: "--exit-with-parent",
    about:
      "Stop when stdin ends, as it does when the process that holds its other end dies. Give it a pipe: with stdin closed or /dev/null it stops at once.",
  }),
  acceptWhenReady: toggle({
    flag: "--accept-when-ready",
    about:
      "Open the listeners last, when the database has answered. For a process that takes over an inherited socket (fd:N) from one that still serves: until it's ready, the other gets the connections.",
  }),
  logLevel: choice({
    placeholder: "LEVEL",
    choices: logLevels,
    fallback: "info",
    flag: "--log-level",
    about: "How much is logged on stderr (JSON lines).",
  }),
  slowCallMs: integer({
    placeholder: "MS",
    min: 0,
    max: limits.maxSlowCallMs,
    fallback: limits.defaultSlowCallMs,
    flag: "--slow-call-ms",
    about: "Log calls that took longer than this, in milliseconds.",
  }),
  metricsListen: text({
    placeholder: "ADDR",
    allowed: "HOST:PORT, [IPV6]:PORT or unix:/PATH",
    accepts: notEmpty,
    flag: "--metrics-listen",
    about:
      "Where to serve metrics for Prometheus, over HTTP at /metrics: HOST:PORT (port 0 takes a free one) or unix:/PATH. Only loopback addresses unless --insecure.",
    fallbackText: "no metrics",
  }),
};

/** Of `migrate`. */
export const migrateOptions = {
  attachAnew: toggle({
    flag: "--attach-anew",
    env: null,
    about:
      "Count all entries again and begin a new epoch, also if nothing is missing: when `doctor` says that counters drifted.",
  }),
  ...databaseOptions,
  ...migrationOptions,
};

/** Of `detach`. */
export const detachOptions = {
  yes: toggle({
    flag: "--yes",
    env: null,
    about: "Do it. Without this, `detach` only says what would be lost.",
  }),
  ...databaseOptions,
  ...migrationOptions,
};

/** Of `plugin add`. */
export const pluginAddOptions = {
  id: text({
    placeholder: "UUID",
    allowed: "a UUID",
    accepts: isUuid,
    flag: "--id",
    env: null,
    about: "The plugin's UUID.",
    fallbackText: "a random one",
  }),
  package: text({
    placeholder: "NAME",
    allowed: "the name of a package",
    accepts: notEmpty,
    flag: "--package",
    env: null,
    about: "The package the plugin comes from, as the host's table notes it.",
    fallbackText: "the key",
  }),
  version: textWithDefault({
    placeholder: "VERSION",
    allowed: "a version",
    accepts: notEmpty,
    fallback: "0.0.0",
    flag: "--version",
    env: null,
    about: "The plugin's version, as the host's table notes it.",
  }),
  ...databaseOptions,
};

/** Of `plugin list`. */
export const pluginListOptions = {
  json: toggle({
    flag: "--json",
    env: null,
    about: "Print a JSON array instead of a table.",
  }),
  ...databaseOptions,
};

const role = {
  placeholder: "NAME",
  allowed: "the name of a database role",
  accepts: (given: string) =>
    notEmpty(given) && Buffer.byteLength(given) <= limits.maxSchemaNameBytes,
};

/** Of `doctor`. */
export const doctorOptions = {
  role: text({
    ...role,
    flag: "--role",
    env: null,
    about:
      "The role whose rights are judged: that of the sidecar, when doctor connects as another.",
    fallbackText: "the role of the database URL",
  }),
  json: toggle({
    flag: "--json",
    env: null,
    about: "Print a JSON object instead of lines.",
  }),
  ...databaseOptions,
};

/** Of `grants`. */
export const grantsOptions = { stateSchema: databaseOptions.stateSchema };

/** Of `health`. */
export const healthOptions = {
  address: textWithDefault({
    placeholder: "ADDR",
    allowed: "HOST:PORT, [IPV6]:PORT or unix:/PATH",
    accepts: notEmpty,
    fallback: limits.defaultListenAddress,
    flag: "--address",
    about: "The sidecar to ask: HOST:PORT or unix:/PATH.",
  }),
  service: text({
    placeholder: "NAME",
    allowed: "the name of a health service",
    accepts: notEmpty,
    flag: "--service",
    env: "PLUGIN_STATE_HEALTH_SERVICE",
    about:
      "What to ask about: `plugin/KEY`, the binding of one plugin, as --plugin or the file of --config names it; `pluginstate.v1.PluginStateService`, the binding at this address; or `liveness`, which is SERVING as long as the process answers, whatever the database does.",
    fallbackText:
      "the process: SERVING while the database takes writes and one plugin at least is registered",
  }),
  timeoutMs: integer({
    placeholder: "MS",
    min: limits.minHealthTimeoutMs,
    max: limits.maxHealthTimeoutMs,
    fallback: limits.defaultHealthTimeoutMs,
    flag: "--timeout-ms",
    env: "PLUGIN_STATE_HEALTH_TIMEOUT_MS",
    about: "How long to wait for the answer, in milliseconds.",
  }),
  tlsCaFile: text({
    ...fileRules,
    flag: "--tls-ca-file",
    env: "PLUGIN_STATE_HEALTH_TLS_CA_FILE",
    about:
      "Ask over TLS, and trust a certificate of a CA in this PEM file. Any of the --tls options means TLS.",
    fallbackText: "with TLS: the CAs that Node.js trusts",
  }),
  tlsCertFile: text({
    ...fileRules,
    flag: "--tls-cert-file",
    env: "PLUGIN_STATE_HEALTH_TLS_CERT_FILE",
    about: "The PEM file with a certificate to show to a sidecar that demands one (mTLS).",
  }),
  tlsKeyFile: text({
    ...fileRules,
    flag: "--tls-key-file",
    env: "PLUGIN_STATE_HEALTH_TLS_KEY_FILE",
    about: "The PEM file with the key of --tls-cert-file.",
  }),
  tlsServerName: text({
    placeholder: "NAME",
    allowed: "the name of a host",
    accepts: notEmpty,
    flag: "--tls-server-name",
    env: "PLUGIN_STATE_HEALTH_TLS_SERVER_NAME",
    about:
      "The name that the sidecar's certificate must be for, where it isn't made for the host of --address.",
    fallbackText: "the host of --address; localhost for a unix socket",
  }),
};

function isSchemaName(given: string): boolean {
  return (
    /^[A-Za-z_]\w*$/.test(given) &&
    !/^pg_/i.test(given) &&
    given.length <= limits.maxSchemaNameBytes
  );
}

function isPostgresUrl(given: string): boolean {
  // As libpq, pg takes a URL with a user and no host, which a parameter may give: a directory of sockets.
  return /^postgres(ql)?:\/\/./.test(given) && URL.canParse(given.replace("@/", "@localhost/"));
}
