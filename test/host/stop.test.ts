import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { Health } from "../../src/gen/health/v1/health_pb.ts";
import { dial, read, serverStream } from "../rpc/peers.ts";
import { holdWrites } from "../support/hold-writes.ts";
import { demoDatabase, dialState, everyRound, name, oneWriteWaits } from "./contract.ts";
import { SidecarProcess } from "./sidecar-process.ts";

const notServing = 2;
/** Signals that follow each other faster count as one. */
const sameRequestMs = 250;

test.for(["SIGTERM", "SIGINT"] as const)(
  "%s lets the writes in flight finish, every one of them, and exits with 0",
  everyRound,
  async (signal) => {
    const database = await demoDatabase();
    const sidecar = new SidecarProcess({ databaseUrl: database.url });
    const client = dialState(await sidecar.address());
    const held = await holdWrites(database);
    const writes = Array.from({ length: 20 }, (_, n) =>
      client.call("set", { ...name, key: `k${n}`, valueJson: "1" }),
    );
    await oneWriteWaits(database);

    sidecar.child.kill(signal);
    await sidecar.logged("a second signal stops at once");
    await held.release();

    await Promise.all(writes);
    expect(await sidecar.ended).toEqual({ code: 0, signal: null });
    const [row] = await database.query<{ n: number }>(
      "select count(*)::int as n from plugin_sidecar.plugin_state",
    );
    expect(row!.n).toBe(20);
  },
);

test(
  "a drain first tells whoever watches health NOT_SERVING, then ends the watch",
  everyRound,
  async () => {
    const { url } = await demoDatabase();
    const sidecar = new SidecarProcess({ databaseUrl: url });
    const watch = read(serverStream(dial(await sidecar.address()), Health.method.watch, {}));
    await watch.next();

    sidecar.child.kill("SIGTERM");

    expect(await watch.next()).toMatchObject({ status: notServing });
    expect(await watch.status).toBe(0);
    expect(await sidecar.ended).toEqual({ code: 0, signal: null });
  },
);

test.for([
  ["SIGTERM", 143],
  ["SIGINT", 130],
] as const)(
  "a second signal, %s, cuts what is in flight and exits with %d at once",
  everyRound,
  async ([signal, code]) => {
    const database = await demoDatabase();
    const sidecar = new SidecarProcess({ databaseUrl: database.url });
    const client = dialState(await sidecar.address());
    const held = await holdWrites(database);
    const write = client.call("set", { ...name, valueJson: "1" }).catch((error) => error.codeName);
    await oneWriteWaits(database);

    sidecar.child.kill("SIGTERM");
    await sidecar.logged("a second signal stops at once");
    await sleep(2 * sameRequestMs);
    sidecar.child.kill(signal);

    expect(await sidecar.ended).toEqual({ code, signal: null });
    expect(await write).toBe("UNAVAILABLE");
    await held.release();
  },
);

test(
  "--drain-timeout-ms bounds the drain: what is left is cut, and it exits with 0",
  everyRound,
  async () => {
    const database = await demoDatabase();
    // The statement under way would be waited for much longer.
    const flags = ["--drain-timeout-ms", "200", "--database-timeout-ms", "600000"];
    const sidecar = new SidecarProcess({ databaseUrl: database.url, flags });
    const client = dialState(await sidecar.address());
    const held = await holdWrites(database);
    const write = client.call("set", { ...name, valueJson: "1" }).catch((error) => error.codeName);
    await oneWriteWaits(database);

    sidecar.child.kill("SIGTERM");

    expect(await write).toBe("UNAVAILABLE");
    expect(await sidecar.ended).toEqual({ code: 0, signal: null });
    await held.release();
  },
);
