import type {
  Change,
  Condition,
  Entry,
  ExternalTransaction,
  ForeignWrite,
  Json,
  Name,
  Outcome,
  Request,
  Result,
  ServiceRequest,
  Transact,
  Write,
} from "./operation.ts";
import { entriesIn, identity } from "./operation.ts";
import type { Random } from "./random.ts";

/** The entries that a history is about: few, so that operations meet. A key's name tells its type. */
export const names: readonly Name[] = [
  { place: "instance", key: "count-1" },
  { place: "instance", key: "count-2" },
  { place: "instance", key: "list-1" },
  { place: "issue", key: "count-1" },
  { place: "issue", key: "list-1" },
  { place: "issue", key: "object-1" },
  { place: "run", key: "count-1" },
  { place: "run", key: "object-1" },
];

const places = [...new Set(names.map(({ place }) => place))];

/** The names of each place, the first and the last with many between them that nobody writes. */
export const manyNames: readonly (readonly Name[])[] = places.map((place) => {
  const [first, ...others] = names.filter((name) => name.place === place);
  const unwritten = Array.from({ length: 40 }, (_, n) => ({ place, key: `unwritten-${n}` }));
  return [first!, ...unwritten, ...others];
});

/** What one client asks: at random, but with revisions in mind that it has seen. */
export class Workload {
  readonly #random: Random;
  readonly #client: number;
  readonly #seen = new Map<string, bigint>();
  #values = 0;

  /** @param client A number of its own below 100, so that no two clients write the same value. */
  constructor(random: Random, client: number) {
    this.#random = random;
    this.#client = client;
  }

  next(): ServiceRequest {
    const dice = this.#random.below(100);
    if (dice < 20) {
      return { do: "get", name: this.#name() };
    }
    if (dice < 30) {
      return { do: "batchGet", names: this.#random.someOf(names, 5) };
    }
    if (dice < 40) {
      return this.#list();
    }
    const request = dice < 55 ? this.#transact() : this.#write(this.#name());
    return this.#random.percent(25) ? { ...request, requestId: this.#random.uuid() } : request;
  }

  /** Always in the same order, so that no two wait for each other. */
  external(): ExternalTransaction {
    const random = this.#random;
    const written = random.percent(50) ? [this.#name()] : random.someOf(names, 3);
    return {
      writes: written
        .sort((a, b) => names.indexOf(a) - names.indexOf(b))
        .map((name) => this.foreign(name)),
      heldMs: random.percent(30) ? 20 : 0,
      isRolledBack: random.percent(5),
    };
  }

  foreign(name = this.#name()): ForeignWrite {
    return this.#random.percent(65)
      ? { do: "foreignUpsert", name, value: this.#value(name) }
      : { do: "foreignDelete", name };
  }

  /** Keeps in mind what a call has shown. */
  learn(request: Request, outcome: Outcome): void {
    for (const { revision, ...name } of entriesShown(request, outcome)) {
      this.#seen.set(identity(name), revision);
    }
  }

  #name(): Name {
    return this.#random.oneOf(names);
  }

  #list(): ServiceRequest {
    const random = this.#random;
    return {
      do: "list",
      place: random.oneOf(places),
      prefix: random.percent(30) ? random.oneOf(["count", "list-", "o"]) : "",
      startAfter: random.percent(20) ? "count-1" : "",
      reverse: random.percent(30),
      keysOnly: random.percent(30),
      pageSize: random.oneOf([0, 1, 2]),
    };
  }

  #transact(): Transact {
    const checked = this.#random.percent(40) ? this.#random.someOf(names, 2) : [];
    const written = this.#random.someOf(names, 3);
    const again = this.#random.percent(20) ? [this.#random.oneOf(written)] : [];
    return {
      do: "transact",
      checks: checked.map((name) => ({ name, condition: this.#condition(name) })),
      operations: [...written, ...again].map((name) => this.#write(name, 8)),
    };
  }

  #write(name: Name, conditionPercent = 25): Write {
    const random = this.#random;
    const options = {
      name,
      ...(random.percent(conditionPercent) ? { condition: this.#condition(name) } : {}),
      ...(random.percent(30) ? { returnPrevious: true } : {}),
    };
    const dice = random.below(100);
    if (dice < 25) {
      return { do: "set", ...options, value: this.#value(name) };
    }
    return dice < 40
      ? { do: "delete", ...options }
      : { do: "update", ...options, change: this.#change(name) };
  }

  #condition(name: Name): Condition {
    const revision = this.#seen.get(identity(name));
    if (revision !== undefined && this.#random.percent(60)) {
      return { kind: "revision", revision };
    }
    return { kind: this.#random.oneOf(["absent", "present", "present"]) };
  }

  /** Mostly of the entry's type. */
  #change(name: Name): Change {
    const random = this.#random;
    const type = random.percent(95) ? name.key.slice(0, 4) : random.oneOf(["coun", "list", "obje"]);
    switch (type) {
      case "coun": {
        const by = random.oneOf([1, 1, 5, -3]);
        return { kind: "increment", by, ...(random.percent(10) ? { max: 100 } : {}) };
      }
      case "list": {
        const [unique, maxLength] = [random.percent(60), random.percent(80) ? 6 : 0];
        return { kind: "append", item: random.below(12), unique, maxLength };
      }
      default: {
        const value = random.oneOf<Json>([
          null,
          this.#unique(),
          { x: this.#unique() },
          { x: null },
        ]);
        return { kind: "mergePatch", patch: { [`m${random.below(4)}`]: value } };
      }
    }
  }

  #value({ key }: Name): Json {
    const unique = this.#unique();
    if (key.startsWith("count")) {
      return unique;
    }
    return key.startsWith("list") ? [unique] : { id: unique };
  }

  #unique(): number {
    this.#values += 1;
    return 1_000 + this.#values * 100 + this.#client;
  }
}

function entriesShown(request: Request, outcome: Outcome): Entry[] {
  if (outcome.kind !== "ok") {
    return [];
  }
  const { reply } = outcome;
  switch (reply.do) {
    case "set":
    case "delete":
    case "update":
      return shownBy(request as Write, reply);
    case "transact":
      return reply.results.flatMap((result, index) =>
        shownBy((request as Transact).operations[index]!, result),
      );
    default:
      return entriesIn(outcome);
  }
}

/** The entry as a write left it. */
function shownBy({ name }: Write, result: Result): Entry[] {
  const isThere = result.do === "set" || (result.do === "update" && result.changed);
  return isThere ? [{ ...name, revision: result.revision }] : [];
}
