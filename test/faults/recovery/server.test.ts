import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import { beforeAll, describe, expect, test } from "vitest";
import { ScopeKind } from "../../../src/gen/pluginstate/v1/entry_pb.ts";
import { failure } from "../../support/client.ts";
import { FaultProxy } from "../../support/proxy.ts";
import { serve } from "../serve.ts";
import { HealthWatch } from "./health-watch.ts";
import { goThrough, type Scene, timeout } from "./outage.ts";
import { PostgresServer, sidecarRole, signalIfThere } from "./postgres-server.ts";
import { use } from "./resources.ts";

let server: PostgresServer;
let proxy: FaultProxy;
let scene: Scene;

beforeAll(async () => {
  server = use(await PostgresServer.create());
  proxy = use(await FaultProxy.before(server.url));
  const sidecar = use(await serve(proxy.through(server.sidecarUrl)));
  const health = use(new HealthWatch(sidecar.address));
  scene = { sidecar, health, proxy, sessions: () => server.sidecarSessions() };
});

const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };
const get = () => scene.sidecar.client.call("get", name, { deadlineMs: 3_000 });
const set = () =>
  scene.sidecar.client.call("set", { ...name, valueJson: "1" }, { deadlineMs: 3_000 });
const unavailable = { codeName: "UNAVAILABLE", reason: "DATABASE_UNAVAILABLE", retryAfter: true };

async function expectUnavailable(): Promise<void> {
  expect(await failure(get())).toMatchObject(unavailable);
  expect(await failure(set())).toMatchObject(unavailable);
}

describe("service resumes by itself, and what was said is what was done, after", () => {
  test("a fast restart", { timeout }, async () => {
    await goThrough("fast restart", scene, {
      begin: () => server.stop("SIGINT"),
      meanwhile: expectUnavailable,
      end: () => server.start(),
    });
  });

  test("an immediate restart, with recovery from the log", { timeout }, async () => {
    await goThrough("immediate restart", scene, {
      begin: () => server.stop("SIGQUIT"),
      meanwhile: expectUnavailable,
      end: () => server.start(),
    });
  });

  test("every process of the server froze, and went on", { timeout }, async () => {
    await goThrough("frozen server", scene, {
      begin: () => server.freeze(),
      meanwhile: expectUnavailable,
      end: () => server.thaw(),
    });
  });

  test("one session froze, of which health needn't say anything", { timeout }, async () => {
    let frozen: { pid: number } | undefined;
    await goThrough("frozen session", scene, {
      isNoticed: false,
      begin: async () => {
        // One that is idle, so that it holds nothing that others wait for.
        await expect
          .poll(async () => {
            [frozen] = await server.query<{ pid: number }>(
              `select pid from pg_stat_activity
                where usename = $1 and state = 'idle' order by random() limit 1`,
              [sidecarRole],
            );
            return frozen;
          })
          .toBeDefined();
        signalIfThere(frozen!.pid, "SIGSTOP");
      },
      end: async () => signalIfThere(frozen!.pid, "SIGCONT"),
    });
  });

  test("sessions were terminated at random, all the time", { timeout }, async () => {
    const terminate = () =>
      server.query(
        `select pg_terminate_backend(pid) from
           (select pid from pg_stat_activity where usename = $1 order by random() limit 1) s`,
        [sidecarRole],
      );
    await goThrough("terminated sessions", scene, {
      isNoticed: false,
      begin: async () => {
        for (let n = 0; n < 30; n++) {
          await terminate();
          await pause(Math.random() * 100);
        }
      },
      end: async () => undefined,
    });
  });
});

describe("while the database takes no writes, reads are answered and writes UNAVAILABLE; then both go on, after", () => {
  const expectReadOnly = async () => {
    await expect.poll(() => get().then(() => "read", String)).toBe("read");
    expect(await failure(set())).toMatchObject(unavailable);
  };

  test("the server was made read-only", { timeout }, async () => {
    const reload = async (setting: string) => {
      await server.query(setting);
      await server.query("select pg_reload_conf()");
    };
    await goThrough("read-only server", scene, {
      begin: () => reload("alter system set default_transaction_read_only = on"),
      meanwhile: expectReadOnly,
      end: () => reload("alter system reset default_transaction_read_only"),
    });
  });

  test("the database was made read-only, for new sessions", { timeout }, async () => {
    await goThrough("read-only database", scene, {
      begin: async () => {
        await server.query("alter database recovery set default_transaction_read_only = on");
        proxy.cut();
      },
      meanwhile: expectReadOnly,
      end: async () => {
        await server.query(
          "begin; set transaction read write; alter database recovery reset default_transaction_read_only; commit",
        );
      },
    });
  });
});

describe("when the server has no connection left for it", () => {
  const limitTo = (connections: number) =>
    server.query(`alter role ${sidecarRole} connection limit ${connections}`);
  const terminate = (sessions: number) =>
    server.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where usename = $1 limit $2`,
      [sidecarRole, sessions],
    );

  test("beside one it has, the sidecar does with that one", { timeout }, async () => {
    await goThrough("one connection", scene, {
      isNoticed: false,
      begin: async () => {
        await limitTo(1);
        await expect.poll(get).toBeDefined();
        const sessions = await server.sidecarSessions();
        await terminate(sessions.length - 1);
        await pause(1_500);
      },
      end: async () => void (await limitTo(-1)),
    });
  });

  test("but those it has, and they all end at once, it opens others where they were", {
    timeout,
  }, async () => {
    await goThrough("all sessions of a full role", scene, {
      isNoticed: false,
      failsCalls: false,
      begin: async () => {
        for (let n = 0; n < 20; n++) {
          await expect.poll(get).toBeDefined();
          await limitTo((await server.sidecarSessions()).length);
          await terminate(100);
          await pause(100);
        }
      },
      end: async () => void (await limitTo(-1)),
    });
  });

  test("by its role's limit, it waits until there are some again", { timeout }, async () => {
    await goThrough("no connections for the role", scene, {
      begin: async () => {
        await limitTo(0);
        await terminate(100);
      },
      meanwhile: expectUnavailable,
      end: async () => void (await limitTo(-1)),
    });
  });

  test("because others took them all, it waits until they give some back", {
    timeout,
  }, async () => {
    let taken: pg.Client[] = [];
    await goThrough("no connections at all", scene, {
      begin: async () => {
        await limitTo(0);
        await terminate(100);
        taken = await takeAll(server.url);
        await taken[0]!.query(`alter role ${sidecarRole} connection limit -1`);
      },
      meanwhile: expectUnavailable,
      end: async () => {
        await Promise.all(taken.map((client) => client.end()));
      },
    });
  });
});

/** Opens connections until there are none left, nor any that a refused client had for a moment. */
async function takeAll(url: string): Promise<pg.Client[]> {
  const taken: pg.Client[] = [];
  for (let refusals = 0; refusals < 20; ) {
    const client = new pg.Client({ connectionString: url });
    client.on("error", () => undefined);
    try {
      await client.connect();
      taken.push(client);
      refusals = 0;
    } catch {
      refusals += 1;
      await pause(20);
    }
  }
  return taken;
}
