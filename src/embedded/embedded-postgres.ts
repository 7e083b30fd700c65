import { chooseAccount } from "./account.ts";
import { prepareBinaries } from "./binaries.ts";
import { requirePlatform } from "./binary-package.ts";
import { ensureCluster } from "./cluster.ts";
import { makeDataDir } from "./data-dir.ts";
import { connectionTo, type EmbeddedConnection, ensureDatabase } from "./database.ts";
import { explainRefusal } from "./embedded-error.ts";
import type { EmbeddedLog } from "./embedded-log.ts";
import { Presence } from "./presence.ts";
import { requireReach } from "./reach.ts";
import { Server } from "./server.ts";
import { makeSocketDir } from "./socket-dir.ts";
import { Supervisor } from "./supervisor.ts";
import { removeLeftovers } from "./unfinished.ts";

/** Where the embedded server lives and what it runs with. */
export interface EmbeddedOptions {
  /** Directory that holds everything: the cluster, the socket, the log. Made if there is none. */
  readonly dataDir: string;
  readonly log: EmbeddedLog;
  /** Directory with initdb and postgres, instead of the npm package's. */
  readonly binDir?: string;
  /** Server settings that win over ours; a server that runs already keeps its own. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Gives the start up. After it, `stop` is the end. */
  readonly signal?: AbortSignal;
}

/** A PostgreSQL server that this sidecar uses, alone or with others on the same data directory. */
export interface EmbeddedPostgres {
  /** For pg's client configuration. Stays the same when the server is started again. */
  readonly connection: EmbeddedConnection;
  /**
   * Leaves. The last sidecar to leave stops the server, else it goes on for the others. Idempotent,
   * never rejects.
   */
  stop(): Promise<void>;
}

/**
 * Runs PostgreSQL in a data directory, or joins the server that runs there, and returns when it
 * accepts connections. It is started again when it dies, until `stop`. It outlives a killed
 * sidecar: the next one finds it, and its data. Throws EmbeddedError for what an operator can act
 * on, and the signal's reason when that aborts.
 */
export async function startEmbedded(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
  try {
    return await start(options, options.signal ?? new AbortController().signal);
  } catch (error) {
    throw explainRefusal(error, options.dataDir);
  }
}

async function start(options: EmbeddedOptions, signal: AbortSignal): Promise<EmbeddedPostgres> {
  requirePlatform();
  const { log, binDir, settings = {} } = options;
  const dataDir = await makeDataDir(options.dataDir);
  const account = await chooseAccount(dataDir);
  await requireReach(dataDir, account, signal);
  await removeLeftovers(dataDir);
  const binaries = await prepareBinaries({ binDir, dataDir, account, log, signal });
  const cluster = await ensureCluster({ dataDir, binaries, account, signal });
  const socketDir = await makeSocketDir(dataDir, account);
  const server = new Server({ binaries, account, dataDir, cluster, socketDir, settings, log });
  const presence = await Presence.enter(socketDir, signal);
  try {
    let address = await server.ensure(signal);
    // Killed between its first answer and this: as good as not started yet.
    while (!(await ensureDatabase(address, signal))) address = await server.ensure(signal);
    const supervisor = new Supervisor(server, log);
    let stopped: Promise<void> | undefined;
    const stop = () => (stopped ??= supervisor.stop().then(() => leave(presence, server, log)));
    return { connection: connectionTo(address), stop };
  } catch (error) {
    await leave(presence, server, log);
    throw error;
  }
}

async function leave(presence: Presence, server: Server, log: EmbeddedLog): Promise<void> {
  try {
    if (await presence.leave()) log.info({}, "PostgreSQL goes on for the other sidecars");
    else await server.stop();
  } catch (error) {
    log.error(
      { err: error },
      "couldn't leave PostgreSQL in order; it may still run, and the next sidecar will use it",
    );
  } finally {
    await presence.close().catch(() => {});
  }
}
