import { isDeepStrictEqual } from "node:util";
import { type Effect, type Entries, read, type State, write } from "./model.ts";
import type { History, Name, Outcome, Recorded, Request, Transact, Write } from "./operation.ts";
import { identity } from "./operation.ts";
import { Random } from "./random.ts";
import { names, Workload } from "./workload.ts";

/** What a faulty server would do with one write. */
export type Bug = "lost update" | "lost write" | "double apply" | "half a Transact";

export interface Simulation {
  readonly seed: number;
  readonly calls: number;
  /** How many operations one may overlap before and after it. */
  readonly overlap: number;
  /** Whether a foreign writer is about which looks before and after each write. */
  readonly withForeigner?: boolean;
  /** Whether foreign writers are about who don't, and calls whose outcome nobody knows. */
  readonly withUnknowns?: boolean;
  /** Happens once, at the first call from the middle on where it makes a difference. */
  readonly bug?: Bug;
}

/** A history, and what nobody but its simulator knows. */
export interface Simulated {
  readonly history: History;
  /** The state after each operation, in the order in which they took effect. */
  readonly trace: readonly Step[];
  readonly hasBug: boolean;
}

export interface Step {
  readonly operation: Recorded;
  readonly entries: Snapshot;
  readonly revision: bigint;
}

/** All entries at one moment. */
export class Snapshot implements Entries {
  readonly #states: ReadonlyMap<string, State>;

  constructor(states: ReadonlyMap<string, State> = new Map()) {
    this.#states = states;
  }

  get(name: Name): State {
    return this.#states.get(identity(name));
  }

  in(place: string) {
    return [...this.#states.values()]
      .filter((state) => state !== undefined)
      .filter(({ name }) => name.place === place);
  }

  with(changes: Effect["changes"]): Snapshot {
    const states = new Map(this.#states);
    for (const [id, { state }] of changes) {
      states.set(id, state);
    }
    return new Snapshot(states);
  }
}

const ticks = 1_000;
const readAll: Request = { do: "batchGet", names };

/** Does random operations one after the other, and records them as if they had overlapped. */
export function simulate(simulation: Simulation): Simulated {
  const run = new Run(simulation);
  for (let call = 0; call < simulation.calls; call++) {
    run.step(call);
  }
  run.finish();
  const { trace, hasBug, revision } = run;
  const operations = trace.map(({ operation }) => operation).sort((a, b) => a.id - b.id);
  return { history: { operations, initialRevision: 0n, finalRevision: revision }, trace, hasBug };
}

class Run {
  readonly trace: Step[] = [];
  hasBug = false;
  revision = 0n;
  #isBugFresh = false;
  #entries = new Snapshot();
  #before = new Snapshot();
  readonly #random: Random;
  readonly #workload: Workload;
  readonly #simulation: Simulation;
  readonly #answered = new Map<string, Outcome>();

  constructor(simulation: Simulation) {
    this.#simulation = simulation;
    this.#random = new Random(simulation.seed);
    this.#workload = new Workload(this.#random, 0);
  }

  step(call: number): void {
    const { withForeigner = false, withUnknowns = false, overlap } = this.#simulation;
    if (this.#isBugFresh) {
      // Before anything can cover it up.
      this.#isBugFresh = false;
      this.#record(readAll, this.#perform(readAll, call), overlap);
    }
    if (withForeigner && this.#random.percent(10)) {
      this.#foreigner(call);
    }
    const isForeign = withUnknowns && this.#random.percent(15);
    const request =
      this.#repeated() ?? (isForeign ? this.#workload.foreign() : this.#workload.next());
    const isLost = withUnknowns && !isForeign && this.#random.percent(5);
    // A call that got lost may never have come, or come later than now.
    const outcome = isLost && this.#random.percent(50) ? undefined : this.#perform(request, call);
    this.#record(request, isLost ? undefined : outcome, overlap);
  }

  /** At the end everybody is done, and everything is read. */
  finish(): void {
    this.#record(readAll, this.#perform(readAll, 0), 0);
  }

  /** Quick, so that nothing comes in between. */
  #foreigner(call: number): void {
    const request = this.#workload.foreign();
    const look = { do: "get", name: request.name } as const;
    for (const one of [look, request, look]) {
      this.#record(one, this.#perform(one, call), 0);
    }
  }

  /** Now and then a client repeats what it asked before. */
  #repeated(): Request | undefined {
    const request = this.trace.at(-1 - this.#random.below(5))?.operation.request;
    const isRepeatable = request !== undefined && "requestId" in request;
    return isRepeatable && this.#random.percent(40) ? request : undefined;
  }

  #perform(request: Request, call: number): Outcome {
    if (request.do === "get" || request.do === "batchGet" || request.do === "list") {
      return { kind: "ok", reply: read(request, this.#entries, this.revision) };
    }
    const requestId = "requestId" in request ? request.requestId : undefined;
    const remembered = this.#answered.get(requestId ?? "");
    if (remembered !== undefined) {
      return remembered;
    }
    const effect = this.#faulty(request, call) ?? write(request, this.#entries, this.revision);
    this.#before = effect.changes.size > 0 ? this.#entries : this.#before;
    this.#entries = this.#entries.with(effect.changes);
    this.revision = effect.revision;
    if (requestId !== undefined && effect.outcome.kind === "ok") {
      this.#answered.set(requestId, effect.outcome);
    }
    return effect.outcome;
  }

  #faulty(request: Request, call: number): Effect | undefined {
    const { bug, calls } = this.#simulation;
    if (bug === undefined || this.hasBug || call < calls / 2) {
      return undefined;
    }
    const right = write(request as Write | Transact, this.#entries, this.revision);
    const wrong = this.#wrong(bug, request as Write | Transact, right);
    this.hasBug = wrong !== undefined;
    this.#isBugFresh = this.hasBug;
    return wrong;
  }

  #wrong(bug: Bug, request: Write | Transact, right: Effect): Effect | undefined {
    const { changes, revision } = right;
    switch (bug) {
      case "lost update": {
        // Reads the entry as it was before the last write, which changed it.
        const isChanged =
          request.do === "update" &&
          this.#before.get(request.name) !== this.#entries.get(request.name);
        const wrong = write(request, this.#before, this.revision);
        return isChanged && changes.size > 0 && !isSame(wrong, right) && wrong.changes.size > 0
          ? wrong
          : undefined;
      }
      case "lost write":
        return request.do !== "transact" && changes.size > 0
          ? { ...right, changes: new Map() }
          : undefined;
      case "double apply": {
        const again = write(request, this.#entries.with(changes), revision);
        return request.do === "update" && changes.size > 0 && again.changes.size > 0
          ? { ...again, outcome: right.outcome }
          : undefined;
      }
      case "half a Transact": {
        const real = [...changes].filter(
          ([, { name, state }]) => !isDeepStrictEqual(state, this.#entries.get(name)),
        );
        return request.do === "transact" && real.length > 1
          ? { ...right, changes: new Map(real.slice(1)) }
          : undefined;
      }
    }
  }

  #record(request: Request, outcome: Outcome | undefined, overlap: number): void {
    const at = (this.trace.length + 1) * ticks;
    const drift = () => 1 + this.#random.below(overlap * ticks + 1);
    const operation: Recorded = {
      id: this.trace.length,
      client: "simulated",
      invokedAt: at - drift(),
      completedAt: at + drift(),
      request,
      outcome: outcome ?? { kind: "unknown", error: "lost" },
    };
    this.trace.push({ operation, entries: this.#entries, revision: this.revision });
    if (outcome !== undefined && this.#random.percent(50)) {
      this.#workload.learn(request, outcome);
    }
  }
}

function isSame(a: Effect, b: Effect): boolean {
  return isDeepStrictEqual(visible(a), visible(b));
}

function visible({ outcome }: Effect): unknown {
  return outcome.kind === "ok" && "value" in outcome.reply ? outcome.reply.value : outcome.kind;
}
