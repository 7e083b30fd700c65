/** Most database connections one sidecar may hold: a hundred of them share one `max_connections`. */
export const maxDatabaseConnections = 10;
export const defaultDatabaseConnections = 3;

export const minDatabaseTimeoutMs = 100;
export const maxDatabaseTimeoutMs = 600_000;
export const defaultDatabaseTimeoutMs = 10_000;

/** Below this a limit would refuse ordinary values; above, one value fills the memory of a call. */
export const minMaxValueBytes = 1024;
export const maxMaxValueBytes = 64 * 1024 * 1024;

/** A day is beyond any client's retries. */
export const maxRequestIdSeconds = 86_400;
export const defaultRequestIdSeconds = 600;

export const minSweepIntervalMs = 100;
export const maxSweepIntervalMs = 3_600_000;
export const defaultSweepIntervalMs = 2_000;

/** What JSON and JavaScript hold exactly, roughly. */
export const maxQuota = 999_999_999_999_999;

/** 0 stops without waiting for calls in flight. */
export const maxDrainTimeoutMs = 600_000;
/** Under the 10 s after which Docker, and Paperclip's host, kill. */
export const defaultDrainTimeoutMs = 8_000;

/** 0 logs every call. */
export const maxSlowCallMs = 600_000;
export const defaultSlowCallMs = 1_000;

/** Connections that a listener may have; each may hold what `rpc/server-options.ts` says. */
export const maxMaxConnections = 100_000;

/** Below a second, calls that wait for the database's turn would be refused. */
export const minMaxCallMs = 1_000;
export const maxMaxCallMs = 3_600_000;

export const minHealthTimeoutMs = 1;
export const maxHealthTimeoutMs = 600_000;
export const defaultHealthTimeoutMs = 5_000;

/** NAMEDATALEN - 1 of PostgreSQL. */
export const maxSchemaNameBytes = 63;
export const maxPluginKeyBytes = 256;

/** Where a sidecar listens, and where `health` asks, when nobody says. */
export const defaultListenAddress = "127.0.0.1:50051";
export const defaultStateSchema = "plugin_sidecar";
/** The plugin of the embedded database, so that the first call needs no set-up. */
export const demoPlugin = "demo";
