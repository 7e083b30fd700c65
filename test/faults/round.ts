import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { expect } from "vitest";
import { checkHistory } from "../history/check.ts";
import type {
  Entry,
  Name,
  Outcome,
  Recorded,
  Reply,
  ServiceRequest,
  Transact,
  Write,
} from "../history/operation.ts";
import { identity } from "../history/operation.ts";
import { perform } from "../history/perform.ts";
import { Recorder } from "../history/recorder.ts";
import { describeViolation } from "../history/violation.ts";
import type { TestClient } from "../support/client.ts";

/** How many rounds of faults to go through. */
export const rounds = Number(process.env["PLUGIN_STATE_FAULT_ROUNDS"] ?? 2);

const resumesWithinMs = 30_000;
const pauseAfterFailureMs = 50;
const namesInABatch = 128;

type Fate = Outcome["kind"];
/** Makes one write, of names that begin with this key. */
type Kind = (attempt: Attempt, key: string) => Promise<Outcome>;
type Attempt = (request: ServiceRequest) => Promise<Outcome>;

/** How much a round's writers do. */
export interface Load {
  /** Writers of each kind. */
  readonly writers: number;
  readonly deadlineMs: number;
  /** Between two writes of a writer. */
  readonly restMs: number;
}

/** A call as its writer saw it. */
export interface Attempted {
  readonly request: ServiceRequest;
  readonly outcome: Outcome;
  readonly tookMs: number;
  /** When it ended, on the clock of `performance.now()`. */
  readonly endedAt: number;
}

const fullLoad: Load = { writers: 3, deadlineMs: 8_000, restMs: 0 };

/** Clients that write while something breaks, and what they were told. */
export class Round {
  readonly #client: () => TestClient;
  readonly #load: Load;
  readonly #attempts: Attempted[] = [];
  readonly #recorder = new Recorder();
  readonly #place = "run";
  readonly #prefix: string;
  readonly #acknowledged: number[] = [];
  #writers: Promise<void>[] = [];
  #isOver = false;
  #givesUpAt = Number.POSITIVE_INFINITY;
  #initialRevision = 0n;

  /**
   * @param name Of the round: its entries are its own.
   * @param client The client to use now; another one when the sidecar was started anew.
   */
  constructor(name: string, client: () => TestClient, load = fullLoad) {
    this.#prefix = name;
    this.#load = load;
    this.#client = client;
  }

  /** Every call of its writers that has ended, as it ended. */
  get attempts(): readonly Attempted[] {
    return this.#attempts;
  }

  async begin(): Promise<void> {
    this.#initialRevision = (await this.#read([this.#name("counted once")])).revision;
    const kinds: Kind[] = [
      this.#setting,
      this.#setting,
      this.#countingOnce,
      this.#counting,
      this.#pairing,
      this.#making,
      this.#reading,
    ];
    const { writers } = this.#load;
    this.#writers = kinds.flatMap((kind, index) =>
      Array.from({ length: writers }, (_, row) => this.#write(index * writers + row, kind)),
    );
    await this.acknowledges(10);
  }

  /** Waits until every writer has been told of so many more writes that they are done. */
  async acknowledges(more: number): Promise<void> {
    const before = [...this.#acknowledged];
    const least = () =>
      Math.min(...this.#writers.map((_, n) => (this.#acknowledged[n] ?? 0) - (before[n] ?? 0)));
    await expect
      .poll(least, { timeout: resumesWithinMs, interval: 5 })
      .toBeGreaterThanOrEqual(more);
  }

  /** Lets the writers finish. To be called in any case. */
  async end(): Promise<void> {
    this.#isOver = true;
    this.#givesUpAt = performance.now() + resumesWithinMs;
    await Promise.all(this.#writers);
  }

  /** Fails unless what is there is what the writers were told. Returns what they were told. */
  async verify(): Promise<string> {
    const operations = [...this.#recorder.operations];
    const names = operations.flatMap(({ request }) => writesOf(request).map(({ name }) => name));
    const found = await this.#read([
      ...new Map(names.map((name) => [identity(name), name])).values(),
    ]);
    expect(operations.filter(({ outcome }) => outcome.kind === "refused")).toEqual([]);
    expectSets(operations, found.entries);
    expectCounters(operations, (key) => found.entries.get(identity(this.#name(key)))?.value ?? 0);
    const history = this.#recorder.history(this.#initialRevision, found.revision);
    expect(checkHistory(history).slice(0, 5).map(describeViolation)).toEqual([]);
    return summary(operations);
  }

  async #write(row: number, kind: Kind): Promise<void> {
    const { deadlineMs, restMs } = this.#load;
    const attempt: Attempt = async (request) => {
      const startedAt = performance.now();
      const outcome = await this.#recorder.record(`writer-${row}`, request, () =>
        perform(this.#client(), request, { deadlineMs }),
      );
      const endedAt = performance.now();
      this.#attempts.push({ request, outcome, tookMs: endedAt - startedAt, endedAt });
      return outcome;
    };
    for (let n = 0; !this.#isOver; n++) {
      const outcome = await kind.call(this, attempt, `${row}-${n}`);
      if (outcome.kind === "ok") {
        this.#acknowledged[row] = (this.#acknowledged[row] ?? 0) + 1;
        if (restMs > 0) await pause(restMs);
      } else {
        await pause(pauseAfterFailureMs);
      }
    }
  }

  /** A value of its own on a key of its own. */
  #setting(attempt: Attempt, key: string): Promise<Outcome> {
    return attempt({ do: "set", name: this.#name(key), value: `value of ${key}` });
  }

  /** An entry that mustn't be there: a write that was done twice would be refused. */
  #making(attempt: Attempt, key: string): Promise<Outcome> {
    const name = this.#name(key);
    return attempt({ do: "set", name, value: `made ${key}`, condition: { kind: "absent" } });
  }

  #reading(attempt: Attempt): Promise<Outcome> {
    return attempt({ do: "get", name: this.#name("counted once") });
  }

  /** Two entries in one transaction. */
  #pairing(attempt: Attempt, key: string): Promise<Outcome> {
    const operations = [`${key}-left`, `${key}-right`].map((side) => ({
      do: "set" as const,
      name: this.#name(side),
      value: `value of ${side}`,
    }));
    return attempt({ do: "transact", checks: [], operations });
  }

  /**
   * Repeated until it is acknowledged, always with the same request id; not for ever once the round is over:
   * there may be nobody any more.
   */
  async #countingOnce(attempt: Attempt): Promise<Outcome> {
    const request = { ...this.#increment("counted once"), requestId: randomUUID() };
    for (;;) {
      const outcome = await attempt(request);
      const isSettled = outcome.kind === "ok" || outcome.kind === "refused";
      if (isSettled || performance.now() > this.#givesUpAt) {
        return outcome;
      }
      await pause(pauseAfterFailureMs);
    }
  }

  /** Never repeated. */
  #counting(attempt: Attempt): Promise<Outcome> {
    return attempt(this.#increment("counted"));
  }

  #increment(key: string): Write {
    return { do: "update", name: this.#name(key), change: { kind: "increment", by: 1 } };
  }

  #name(key: string): Name {
    return { place: this.#place, key: `${this.#prefix}/${key}` };
  }

  async #read(names: readonly Name[]) {
    const entries = new Map<string, Entry>();
    let revision = 0n;
    for (let from = 0; from < names.length; from += namesInABatch) {
      const reply = await this.#readBatch(names.slice(from, from + namesInABatch));
      revision = reply.revision;
      for (const entry of reply.entries) {
        if (entry !== undefined) entries.set(identity(entry), entry);
      }
    }
    return { entries, revision };
  }

  /** Tries again: connections that died unnoticed may be left over from the last fault. */
  async #readBatch(names: readonly Name[]): Promise<Reply & { readonly do: "batchGet" }> {
    const request = { do: "batchGet", names } as const;
    const endsAt = performance.now() + resumesWithinMs;
    for (;;) {
      const outcome = await this.#recorder.record("reader", request, () =>
        perform(this.#client(), request, { deadlineMs: this.#load.deadlineMs }),
      );
      if (outcome.kind === "ok" && outcome.reply.do === "batchGet") {
        return outcome.reply;
      }
      if (performance.now() > endsAt) {
        throw new Error(`the reader got ${JSON.stringify(outcome)}`);
      }
      await pause(pauseAfterFailureMs);
    }
  }
}

function writesOf(request: Recorded["request"]): readonly Write[] {
  switch (request.do) {
    case "set":
    case "update":
      return [request];
    case "transact":
      return request.operations;
    default:
      return [];
  }
}

/** What was acknowledged is there; what was refused isn't; of a Transact all or nothing. */
function expectSets(operations: readonly Recorded[], entries: ReadonlyMap<string, Entry>): void {
  for (const { request, outcome } of operations) {
    if (request.do !== "set" && request.do !== "transact") {
      continue;
    }
    const writes = writesOf(request as Write | Transact) as (Write & { do: "set" })[];
    const found = writes.map(({ name }) => entries.get(identity(name))?.value);
    const whole = writes.map(({ value }) => value);
    const nothing = writes.map(() => undefined);
    const right = {
      ok: [whole],
      refused: [nothing],
      notDone: [nothing],
      unknown: [whole, nothing],
    };
    expect(right[outcome.kind], JSON.stringify({ request, outcome: outcome.kind })).toContainEqual(
      found,
    );
  }
}

function expectCounters(operations: readonly Recorded[], counter: (key: string) => unknown): void {
  const increments = operations.filter(({ request }) => request.do === "update");
  const isOnce = ({ request }: Recorded) => "requestId" in request;
  const once = fates(increments.filter(isOnce));
  const plain = fates(increments.filter((operation) => !isOnce(operation)));
  expect(counter("counted once")).toBe(once.ok);
  expect(counter("counted")).toBeGreaterThanOrEqual(plain.ok);
  expect(counter("counted")).toBeLessThanOrEqual(plain.ok + plain.unknown);
}

function fates(operations: readonly Recorded[]): Record<Fate, number> {
  const counts: Record<Fate, number> = { ok: 0, refused: 0, notDone: 0, unknown: 0 };
  for (const { outcome } of operations) {
    counts[outcome.kind] += 1;
  }
  return counts;
}

function summary(operations: readonly Recorded[]): string {
  const { ok, notDone, unknown } = fates(operations);
  const errors = operations.flatMap(({ outcome }) => ("error" in outcome ? [outcome.error] : []));
  const kinds = [...new Set(errors.map((error) => error.slice(0, error.indexOf(":"))))].sort();
  return `${ok} acknowledged, ${notDone} not done, ${unknown} unknown (${kinds.join(", ")})`;
}
