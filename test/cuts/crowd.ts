import type { Random } from "../fuzz/random.ts";
import { transports } from "./bindings-file.ts";
import { replies } from "./calls.ts";
import { BadClient, type Behaviour, type Script } from "./clients.ts";
import type { Victim } from "./victim.ts";

const behaviours: readonly Behaviour[] = ["unread", "blocked", "slow", "vanishes", "frozen"];
const counts = { small: 20, "4 MiB": 2 };
const sizes = ["small", "4 MiB"] as const;
/** What HTTP/2 allows by itself, a reply or two, and as much as may be. */
const windows = [65_535, 10 * 1024 * 1024, 2 ** 31 - 1];

/** Connections of one crowd. */
export const crowdSize = behaviours.length * transports.length * sizes.length;

/** A client of each behaviour, with a connection for each transport and each size of replies. */
export class Crowd implements AsyncDisposable {
  readonly #clients: readonly BadClient[];

  private constructor(clients: readonly BadClient[]) {
    this.#clients = clients;
  }

  static async gather(victim: Victim, random: Random): Promise<Crowd> {
    const scripts = behaviours.map((behaviour) => scriptOf(behaviour, victim, random));
    return new Crowd(await Promise.all(scripts.map((script) => BadClient.start(script))));
  }

  /** Those that were frozen go on. */
  thaw(): void {
    for (const client of this.#clients) client.thaw();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#clients.map((client) => client[Symbol.asyncDispose]()));
  }
}

function scriptOf(behaviour: Behaviour, victim: Victim, random: Random): Script {
  const headers = { authorization: victim.authorization };
  return {
    behaviour,
    // Otherwise all would be read, into the client.
    window: behaviour === "unread" ? windows[0]! : windows[random.below(windows.length)]!,
    blockedMs: random.below(1_500),
    connections: transports.flatMap((transport) =>
      sizes.map((size) => ({
        address: victim.addressOf(transport),
        isSecure: transport === "tls",
        calls: [{ ...replies[size](counts[size]), headers }],
      })),
    ),
  };
}
