import { randomUUID } from "node:crypto";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { CallError, TestClient } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { isAlive, odd, real, supervise } from "./supervise.ts";

const patient = { timeout: 20_000 };
const scope = { kind: ScopeKind.INSTANCE };

let database: TestDatabase;

beforeEach(async () => {
  database = await testDatabase();
  await database.addPlugin("demo");
});

afterEach(() => database[Symbol.asyncDispose]());

/** Clients that count without pause, as docs/errors.md says how: what nobody did is sent again. */
class Load {
  readonly #address: string;
  /** Of calls that were sent again. */
  readonly again: CallError[] = [];
  acknowledged = 0;
  #isOver = false;

  constructor(address: string) {
    this.#address = address;
  }

  async run(clients: number): Promise<void> {
    await Promise.all(Array.from({ length: clients }, () => this.#client()));
  }

  stop(): void {
    this.#isOver = true;
  }

  async #client(): Promise<void> {
    while (!this.#isOver) {
      using client = new TestClient(this.#address);
      // A few calls on each connection, so that there are always new ones.
      for (let n = 0; n < 10 && !this.#isOver; n++) await this.#count(client);
    }
  }

  async #count(client: TestClient): Promise<void> {
    const change = { case: "increment", value: {} } as const;
    const request = { scope, key: "count", change, requestId: randomUUID() };
    for (;;) {
      try {
        await client.call("update", request, { deadlineMs: 20_000 });
        this.acknowledged++;
        return;
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
        // A call that starts as the old one says goodbye: the client's own library ends it.
        if (error.codeName !== "UNAVAILABLE" && error.reason !== undefined) throw error;
        this.again.push(error);
        await sleep(5);
      }
    }
  }
}

test("replacing a sidecar under load loses no call, and refuses no connection", async () => {
  const { sidecar, told } = await supervise(real(database));
  const [binding] = sidecar.bindings;
  const load = new Load(binding!.address);
  const running = load.run(8);
  await expect.poll(() => load.acknowledged, patient).toBeGreaterThan(50);

  for (let round = 1; round <= 3; round++) {
    const [old, before] = [sidecar.pid!, load.acknowledged];
    await sidecar.replace();
    expect(isAlive(old)).toBe(false);
    expect(sidecar.bindings).toEqual([binding]);
    await expect.poll(() => load.acknowledged, patient).toBeGreaterThan(before + 50);
  }
  load.stop();
  await running;

  using reader = new TestClient(binding!.address);
  const { entry } = await reader.call("get", { scope, key: "count" });
  expect(Number(entry?.valueJson)).toBe(load.acknowledged);
  // The new one answers nothing before it's ready.
  expect(load.again.map(({ reason }) => reason)).not.toContain("DATABASE_UNAVAILABLE");
  expect(load.again.filter(({ message }) => message.includes("ECONNREFUSED"))).toEqual([]);
  expect(sidecar.restarts).toBe(0);
  expect(told.of("exited").map(({ exit, asked }) => [exit.code, asked])).toEqual([
    [0, true],
    [0, true],
    [0, true],
  ]);
});

test("health stays SERVING while a sidecar is replaced", async () => {
  const { sidecar, told } = await supervise(real(database));
  await sidecar.health.until("SERVING");

  await sidecar.replace();
  await sidecar.replace();

  expect(told.of("health").map(({ status }) => status)).toEqual(["SERVING"]);
  await sidecar.stop();
  expect(sidecar.health.status).toBe("UNKNOWN");
});

test("replacements that overlap are one", async () => {
  const { sidecar, told } = await supervise(odd("ready"));

  const replacing = sidecar.replace();
  expect(sidecar.replace()).toBe(replacing);
  await replacing;

  expect(told.of("ready")).toHaveLength(2);
});

test("a replacement that doesn't start leaves the old one serving, as it was told to", async () => {
  const { sidecar, told } = await supervise(real(database));
  const old = sidecar.pid!;

  await expect(sidecar.replace({ args: ["--no-such-flag"] })).rejects.toMatchObject({
    reason: "USAGE",
    retryable: false,
  });

  expect(sidecar.pid).toBe(old);
  using client = new TestClient(sidecar.bindings[0]!.address);
  await client.call("set", { scope, key: "k", valueJson: "1" });
  process.kill(old, "SIGKILL");
  await expect.poll(() => told.of("ready").length, patient).toBe(2);
});

test("a replacement's options count for the restarts after it", async () => {
  const { sidecar, told } = await supervise(odd("ready and tells"));

  await sidecar.replace({ env: { RELEASE: "two" } });
  await expect.poll(() => told.log.length, patient).toBe(2);
  process.kill(sidecar.pid!, "SIGKILL");
  await expect.poll(() => told.log.length, patient).toBe(3);

  expect(told.log.map((line) => JSON.parse(line).env.RELEASE)).toEqual([undefined, "two", "two"]);
});

test("an old sidecar that dies while its replacement starts is replaced all the same", async () => {
  const { sidecar, told } = await supervise(real(database));
  const old = sidecar.pid!;
  const replacing = sidecar.replace();
  await expect.poll(() => told.of("started").length, patient).toBe(2);

  process.kill(old, "SIGKILL");
  await replacing;

  expect(told.of("ready")).toHaveLength(2);
  expect(sidecar.restarts).toBe(0);
  using client = new TestClient(sidecar.bindings[0]!.address);
  await client.call("set", { scope, key: "k", valueJson: "1" });
});

test("stopping during a replacement stops both", async () => {
  const { sidecar, told } = await supervise(real(database));
  const replacing = sidecar.replace();
  const rejected = expect(replacing).rejects.toMatchObject({ name: "SidecarError" });
  await expect.poll(() => told.of("started").length, patient).toBe(2);

  await sidecar.stop();
  await rejected;

  for (const { pid } of told.of("started")) expect(isAlive(pid)).toBe(false);
});

test("without held sockets the old one is drained first, and the port stays", async () => {
  const { sidecar, told } = await supervise({ ...real(database), holdSockets: false });
  const { bindings } = sidecar;
  const old = sidecar.pid!;

  await sidecar.replace();

  expect(isAlive(old)).toBe(false);
  expect(sidecar.bindings).toEqual(bindings);
  expect(told.of("addresses_changed")).toEqual([]);
  process.kill(sidecar.pid!, "SIGKILL");
  await expect.poll(() => told.of("ready").length, patient).toBe(3);
  expect(sidecar.bindings).toEqual(bindings);
});

test("a stopped sidecar's address refuses connections", async () => {
  const { sidecar } = await supervise(real(database));
  const [, port] = sidecar.bindings[0]!.address.split(":");

  await sidecar.stop();

  const outcome = new Promise((resolve) => {
    const socket = connect(Number(port), "127.0.0.1", () => resolve("connected"));
    socket.once("error", () => resolve("refused"));
  });
  expect(await outcome).toBe("refused");
});
