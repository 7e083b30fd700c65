import type { ChannelCredentials } from "@grpc/grpc-js";
import type { SidecarEvent } from "./events.ts";
import type { RestartRule } from "./restart-policy.ts";

/** A plugin to serve, and where. */
export interface BindingRequest {
  /** The plugin's key or UUID. */
  readonly plugin: string;
  /**
   * `127.0.0.1:50051`, `[::1]:50051`, `unix:/path/to.sock`. Default `127.0.0.1:0`: a free port, and the same
   * one after a restart.
   */
  readonly listen?: string;
}

/** What may change when a sidecar is replaced: a new release, a new token, another flag. */
export interface ReplaceableOptions {
  /**
   * The program and its first arguments, instead of this package's own
   * `node …/dist/main.js serve`. Flags are appended. A wrapper must pass on stdin, signals and descriptors.
   */
  readonly command?: readonly [string, ...string[]];
  /** The database's URL. Given to the process as the variable `DATABASE_URL`, never as an argument. */
  readonly databaseUrl?: string;
  /** Where the embedded PostgreSQL keeps its files, when no database is given. Sidecars may share it. */
  readonly dataDir?: string;
  /**
   * The token that calls of the only binding must have. Given to the process as the variable
   * `PLUGIN_STATE_TOKEN`. A token is good for one plugin: with several bindings, or a `config`, it is a
   * TypeError. For theirs write a `config` whose `token_env` names variables, and set those in `env`.
   */
  readonly token?: string;
  /** Further flags of `plugin-state serve`. Everybody on the machine can read them: no secrets. */
  readonly args?: readonly string[];
  /**
   * Variables for the process. Of this process's own it gets those only that a program needs to run (PATH,
   * HOME, TMPDIR, TZ, LANG and the like): a DATABASE_URL of the host's isn't the sidecar's.
   */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** How a sidecar is started and watched. All times are in milliseconds. */
export interface SidecarOptions extends ReplaceableOptions {
  /** The plugins to serve, each at an address of its own. Either these or `config`. */
  readonly bindings?: readonly BindingRequest[];
  /** The path of a configuration file, for `--config`. Its bindings are the sidecar's. */
  readonly config?: string;
  /**
   * With `config`: addresses to open here and hand over as descriptors 3, 4, …, which the file's bindings
   * name as `fd:3`, `fd:4`, … They stay open when the process is restarted or replaced.
   */
  readonly sockets?: readonly string[];
  /** The process's working directory. Default: this process's. */
  readonly cwd?: string;
  /**
   * Whether this process opens the addresses and lets the sidecar inherit them, so that they stay open while
   * it is replaced. Default true; never on Windows, where the sidecar binds them itself.
   */
  readonly holdSockets?: boolean;
  /** Whether the process ends when this one does, however that dies. Default true. */
  readonly exitWithParent?: boolean;
  /** How long a start may take until the process is killed and counts as failed. Default 60,000. */
  readonly startTimeoutMs?: number;
  /**
   * How long a process may take to end after SIGTERM, until SIGKILL. Default 20,000; the sidecar's own bound
   * for calls in flight, `--drain-timeout-ms`, is 8,000.
   */
  readonly stopTimeoutMs?: number;
  /** When it is started again; see {@link RestartRule} for the defaults. */
  readonly restart?: Partial<RestartRule>;
  /**
   * How long clients are kept waiting in the queue of an address whose sidecar is being restarted. Before a
   * longer wait the addresses are closed, so that clients are refused at once. Default 5,000.
   */
  readonly holdMs?: number;
  /** How often health is asked where it can't be watched, and a lost watch is renewed. Default 500. */
  readonly healthPollMs?: number;
  /** How health is asked, if not in the clear: for bindings with TLS. */
  readonly healthCredentials?: ChannelCredentials;
  /** Stops the sidecar when it aborts, as `stop()` does. */
  readonly signal?: AbortSignal;
  /** Told what happens. */
  readonly onEvent?: (event: SidecarEvent) => void;
  /**
   * Told each line of the sidecar's log (JSON), without secrets: up to 8,192 characters, and 1,000 lines a second.
   */
  readonly onLog?: (line: string) => void;
}
