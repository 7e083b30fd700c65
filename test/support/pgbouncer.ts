import { spawn } from "node:child_process";
import { once } from "node:events";
import { chown, mkdir, rm, stat, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

/** A pooler in front of a test server. */
export interface PgBouncer {
  /** The directory of its unix socket. */
  readonly host: string;
  readonly port: number;
  stop(): Promise<void>;
}

/** Where a server is, and who may connect to it. */
export interface PooledServer {
  readonly host: string;
  readonly port: number;
  readonly users: readonly string[];
}

const port = 6432;
const startTimeoutMs = 10_000;

/**
 * Runs PgBouncer in transaction mode, on a unix socket alone, as the account that the server runs as. Of
 * each database it has so few connections that clients really share them; it ignores no startup parameter,
 * so that one it doesn't know is refused. Two names of the database postgres are there for doctor's tests.
 */
export async function startPgBouncer(
  program: string,
  directory: string,
  server: PooledServer,
): Promise<PgBouncer> {
  const { uid, gid } = await stat(server.host);
  await mkdir(directory, { mode: 0o755 });
  await writeFile(`${directory}/users`, server.users.map((user) => `"${user}" ""\n`).join(""));
  await writeFile(`${directory}/pgbouncer.ini`, settings(directory, server));
  await chown(directory, uid, gid);
  const account = process.getuid?.() === 0 ? { uid, gid } : {};
  const child = spawn(program, [`${directory}/pgbouncer.ini`], { stdio: "ignore", ...account });
  const stopped = once(child, "exit");
  const stop = async () => {
    child.kill("SIGKILL");
    await stopped;
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await untilItAnswers(directory, server.users[0] ?? "", stopped);
    return { host: directory, port, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function settings(directory: string, { host, port: serverPort }: PooledServer): string {
  return `[databases]
in_session_mode = host=${host} port=${serverPort} dbname=postgres pool_mode=session
with_one_connection = host=${host} port=${serverPort} dbname=postgres pool_size=1
* = host=${host} port=${serverPort}
[pgbouncer]
unix_socket_dir = ${directory}
unix_socket_mode = 0777
listen_port = ${port}
auth_type = trust
auth_file = ${directory}/users
logfile = ${directory}/log
pool_mode = transaction
default_pool_size = 2
max_client_conn = 1000
`;
}

async function untilItAnswers(
  host: string,
  user: string,
  stopped: Promise<unknown>,
): Promise<void> {
  const endsAt = performance.now() + startTimeoutMs;
  for (;;) {
    const client = new pg.Client({ host, port, user, database: "postgres" });
    client.on("error", () => undefined);
    try {
      await client.connect();
      await client.end();
      return;
    } catch (error) {
      if (performance.now() > endsAt) {
        throw error;
      }
    }
    await Promise.race([sleep(50), stopped.then(() => Promise.reject(new Error("it ended")))]);
  }
}
