import { setTimeout as pause } from "node:timers/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { failure } from "../../support/client.ts";
import { PostgresServer, sidecarRole, signalIfThere } from "../postgres-server.ts";
import { releasing } from "../resources.ts";
import { goThrough, timeout } from "./outage.ts";
import {
  expectUnavailable,
  name,
  type ProxiedScene,
  serveServer,
  unavailable,
} from "./proxied-scene.ts";

const use = releasing();
let server: PostgresServer;
let scene: ProxiedScene;

beforeAll(async () => {
  server = use(await PostgresServer.create());
  scene = await serveServer(server, use);
});

const get = () => scene.sidecar.client.call("get", name, { deadlineMs: 3_000 });
const set = () =>
  scene.sidecar.client.call("set", { ...name, valueJson: "1" }, { deadlineMs: 3_000 });

describe("service resumes by itself, and what was said is what was done, after", () => {
  test("a fast restart", { timeout }, async () => {
    await goThrough("fast restart", scene, {
      begin: () => server.stop("SIGINT"),
      meanwhile: () => expectUnavailable(scene),
      end: () => server.start(),
    });
  });

  test("an immediate restart, with recovery from the log", { timeout }, async () => {
    await goThrough("immediate restart", scene, {
      begin: () => server.stop("SIGQUIT"),
      meanwhile: () => expectUnavailable(scene),
      end: () => server.start(),
    });
  });

  test("every process of the server froze, and went on", { timeout }, async () => {
    await goThrough("frozen server", scene, {
      begin: () => server.freeze(),
      meanwhile: () => expectUnavailable(scene),
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
        await server.query("alter database state set default_transaction_read_only = on");
        scene.proxy.cut();
      },
      meanwhile: expectReadOnly,
      end: async () => {
        await server.query(
          "begin; set transaction read write; alter database state reset default_transaction_read_only; commit",
        );
      },
    });
  });
});
