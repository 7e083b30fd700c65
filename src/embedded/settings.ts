/** Where the server listens: the port is only a part of the socket's name. */
export const serverPort = 5432;

/**
 * The server's settings, each with its reason. Durability is PostgreSQL's own: fsync,
 * full_page_writes and synchronous_commit stay on. Measured: memory of the idle server 19 MB (PSS,
 * 18.4) against 27 MB with the defaults.
 */
export function serverSettings(major: number, socketDir: string): Record<string, string> {
  return {
    // Reached through the socket alone, by who may enter its 0700 directory. Quoted, for a path may
    // hold a comma.
    listen_addresses: "",
    unix_socket_directories: `"${socketDir.replaceAll('"', '""')}"`,
    unix_socket_permissions: "0700",
    port: String(serverPort),
    cluster_name: "plugin-state",

    // 3 connections a sidecar by default: room for a dozen sidecars and a psql.
    max_connections: "50",
    // Small entries, and the kernel caches the files as well; memory of an idle server counts on a
    // laptop.
    shared_buffers: "64MB",
    // Compiling costs more than our short statements take.
    jit: "off",
    // One plugin's scan shall not take every core; and parallel workers fill Docker's 64 MB
    // /dev/shm.
    max_parallel_workers_per_gather: "0",
    // Processes that would only sit there: nothing subscribes here, and the data fits in memory.
    max_logical_replication_workers: "0",
    ...(major >= 18 ? { io_method: "sync" } : {}),

    // No client errors and no statements in the log: they would show keys and values. The sidecar
    // reports its own.
    log_min_messages: "log",
    log_min_error_statement: "panic",
    log_error_verbosity: "terse",
    // Every few minutes under load, for nobody to read: the log is only cut at a start.
    log_checkpoints: "off",

    timezone: "UTC",
    log_timezone: "UTC",
  };
}
