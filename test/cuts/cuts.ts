import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import type { Random } from "../fuzz/random.ts";
import { failure, TestClient } from "../support/client.ts";
import { replies } from "./calls.ts";
import { BadClient } from "./clients.ts";
import { Crowd, crowdSize } from "./crowd.ts";
import type { Victim } from "./victim.ts";

/** Most connections of each listener, for {@link cuts}'s `connection limit`. */
export const maxConnections = 2 * crowdSize;
/** How long a drain may take. */
export const drainTimeoutMs = 500;
/** How old a call may be, where that is what cuts. */
export const maxCallMs = 1_000;
/** So many the listener of health has; a newcomer takes the place of the oldest. */
const maxHealthConnections = 32;
/** A second signal that comes sooner counts as the first. */
const secondSignalMs = 300;

/** After this whoever is cut has been. */
const cutMs = drainTimeoutMs + 700;

/** The ways in which connections are cut while the process goes on, and none. */
export const cuts = {
  "not at all": () => sleep(cutMs),
  reload: async (victim: Victim) => {
    await victim.renew();
    await sleep(cutMs);
  },
  "removed binding": async (victim: Victim) => {
    await victim.removeBindings();
    await sleep(cutMs);
    await victim.addBindings();
  },
  "token withdrawn": async (victim: Victim) => {
    const { authorization } = victim;
    await victim.withdrawToken();
    using client = new TestClient(victim.addressOf("unix"));
    const name = { scope: { kind: ScopeKind.INSTANCE }, key: "small" };
    const { codeName } = await failure(client.call("get", name, { authorization }));
    expect(codeName).toBe("UNAUTHENTICATED");
  },
  "connection limit": async (victim: Victim) => {
    await overcrowd(victim);
    await replaceHealthClients(victim);
  },
} as const;

/** What cuts a call that is too old; for a victim with {@link maxCallMs}. */
export const tooOld = () => sleep(3 * maxCallMs);

/** Lets a crowd call, and cuts it off at some moment. The bystander mustn't notice. */
export async function cutOff(
  victim: Victim,
  random: Random,
  cut: (victim: Victim) => Promise<unknown>,
): Promise<void> {
  await using crowd = await Crowd.gather(victim, random);
  await sleep(random.below(600));
  await cut(victim);
  await victim.isWell();
  crowd.thaw();
  await sleep(random.below(300));
  await victim.isWell();
}

/** The ways in which the process ends, and what it has to exit with. */
export const ends = {
  drain: 0,
  "second signal": 143,
} as const;

/** Lets a crowd call, and has the process end. */
export async function endIt(victim: Victim, random: Random, end: keyof typeof ends): Promise<void> {
  await using _crowd = await Crowd.gather(victim, random);
  await sleep(random.below(600));
  await victim.isWell();
  victim.signal("SIGTERM");
  if (end === "second signal") {
    await sleep(secondSignalMs);
    victim.signal("SIGTERM");
  }
  const ended = await victim.ended();
  // A drain that ended before the second signal came is one.
  const codes = end === "drain" ? [0] : [0, ends[end]];
  expect(codes, victim.condition()).toContain(ended.code);
  expect(ended.signal).toBeNull();
}

/** More connections than the listeners take: those that are too many are closed. */
async function overcrowd(victim: Victim): Promise<void> {
  const sockets = ["plain", "unix"].flatMap((transport) =>
    Array.from({ length: maxConnections }, () =>
      socketTo(victim.addressOf(transport as "plain" | "unix")),
    ),
  );
  const closed = () => sockets.filter((socket) => socket.closed).length;
  await expect.poll(closed).toBeGreaterThan(0);
  for (const socket of sockets) socket.destroy();
}

async function replaceHealthClients(victim: Victim): Promise<void> {
  const calls = [{ ...replies.health(10), headers: {} }];
  const connection = { address: victim.healthAddress, isSecure: false, calls };
  const connections = Array.from({ length: maxHealthConnections / 2 }, () => connection);
  const script = { behaviour: "frozen", window: 2 ** 31 - 1, blockedMs: 0, connections } as const;
  await using _first = await BadClient.start(script);
  await using _second = await BadClient.start({ ...script, behaviour: "unread" });
  await using _third = await BadClient.start({ ...script, behaviour: "reads" });
}

function socketTo(address: string): Socket {
  const path = address.startsWith("unix:") ? address.slice("unix:".length) : undefined;
  const [host = "", port] = address.split(":");
  const socket = path === undefined ? connect(Number(port), host) : connect(path);
  socket.on("error", () => {});
  return socket;
}
