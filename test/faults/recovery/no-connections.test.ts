import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import { beforeAll, describe, expect, test } from "vitest";
import { PostgresServer, sidecarRole } from "../postgres-server.ts";
import { releasing } from "../resources.ts";
import { goThrough, timeout } from "./outage.ts";
import { expectUnavailable, name, type ProxiedScene, serveServer } from "./proxied-scene.ts";

const use = releasing();
let server: PostgresServer;
let scene: ProxiedScene;

beforeAll(async () => {
  server = use(await PostgresServer.create());
  scene = await serveServer(server, use);
});

const get = () => scene.sidecar.client.call("get", name, { deadlineMs: 3_000 });

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

  test("a BatchGet that a second one would be opened for is answered with the first, and nobody notices", async () => {
    await limitTo(1);
    await expect.poll(get).toBeDefined();
    await terminate((await server.sidecarSessions()).length - 1);
    await pause(1_500);
    const beganAt = performance.now();
    const names = Array.from({ length: 100 }, (_, n) => ({ ...name, key: `${n}` }));
    for (let n = 0; n < 50; n++) {
      const { results } = await scene.sidecar.client.call("batchGet", { names });
      expect(results).toHaveLength(names.length);
    }
    expect(scene.health.since(beganAt)).toEqual([]);
    expect(await server.sidecarSessions()).toHaveLength(1);
    await limitTo(-1);
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
      meanwhile: () => expectUnavailable(scene),
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
      meanwhile: () => expectUnavailable(scene),
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
