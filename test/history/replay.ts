import { isDeepStrictEqual } from "node:util";
import { Book } from "./book.ts";
import type { Filler, Holes } from "./holes.ts";
import { read, type State, write } from "./model.ts";
import type { ForeignWrite, History, Name, Read, Recorded, Transact, Write } from "./operation.ts";
import { asText, entriesIn, identity } from "./operation.ts";
import { type Order, placeOf, type Window } from "./order.ts";
import type { Rule, Violation } from "./violation.ts";

/**
 * Does a history's writes one after the other in the order of their revisions on a plain model, and
 * returns where a reply differs from the model's, at the first revision where one does.
 */
export function replay(
  acts: readonly Recorded[],
  order: Order,
  holes: Holes,
  { initialRevision, finalRevision }: History,
): Violation[] {
  const run = new Replay(acts, order, holes);
  const violations = run.look(initialRevision, []);
  for (let revision = initialRevision; revision < finalRevision && violations.length === 0; ) {
    revision = run.step(revision, violations);
  }
  return violations.length === 0 ? run.unexplained() : violations;
}

interface Refused {
  readonly act: Recorded;
  readonly request: Read | Write | Transact;
  readonly names: readonly Name[];
  readonly window: Window;
  /** Whether to look at every revision, rather than where its entries change. */
  readonly isEverywhere: boolean;
  isNew: boolean;
}

class Replay {
  readonly #book = new Book();
  readonly #taken: ReadonlyMap<bigint, Recorded>;
  readonly #holes: Holes["candidates"];
  /** Operations that took no revision, by the plugin's at their moment. */
  readonly #idle = new Map<bigint, Recorded[]>();
  /** Refusals to come, the first last. */
  readonly #refused: Refused[];
  #open: Refused[] = [];

  constructor(acts: readonly Recorded[], order: Order, holes: Holes) {
    this.#taken = order.taken;
    this.#holes = holes.candidates;
    for (const act of acts) {
      const place = placeOf(act);
      if (place !== undefined && place.base === place.last) {
        const others = this.#idle.get(place.base);
        others === undefined ? this.#idle.set(place.base, [act]) : others.push(act);
      }
    }
    this.#refused = acts
      .filter(({ outcome }) => outcome.kind === "refused")
      .map((act) => ({
        act,
        request: act.request as Read | Write | Transact,
        names: namesOf(act.request, this.#book),
        window: order.windows.get(act)!,
        isEverywhere: writesTwice(act.request),
        isNew: true,
      }))
      .sort((a, b) => Number(b.window.floor - a.window.floor));
  }

  /** Does the write that comes after a revision, and returns the revision after it. */
  step(revision: bigint, violations: Violation[]): bigint {
    const act = this.#taken.get(revision + 1n);
    const after = act === undefined ? revision + 1n : placeOf(act)!.last;
    violations.push(...(act === undefined ? this.#fill(after) : this.#write(act, revision)));
    for (let inner = revision + 1n; inner < after; inner++) {
      violations.push(...(this.#idle.get(inner) ?? []).map((torn) => halfDone(torn, act!)));
    }
    if (violations.length === 0) {
      const names = act === undefined ? this.#holes.get(after)!.map((one) => one.write.name) : [];
      violations.push(...this.look(after, act ? namesOf(act.request, this.#book) : names));
    }
    return after;
  }

  /** Checks what was answered at a revision, which changed these entries. */
  look(revision: bigint, changed: readonly Name[]): Violation[] {
    const violations = (this.#idle.get(revision) ?? []).flatMap((act) =>
      isRead(act.request) ? this.#read(act, act.request, revision) : this.#write(act, revision),
    );
    return [...violations, ...this.#explainRefusals(revision, changed)];
  }

  /** Refusals that no revision explained. */
  unexplained(): Violation[] {
    return [...this.#open, ...this.#refused].map(unfounded);
  }

  #read(act: Recorded, request: Read, revision: bigint): Violation[] {
    const names = namesOf(request, this.#book);
    const tries = this.#book
      .worlds(names, shownBy(act))
      .map((world) => ({ world, outcome: { kind: "ok", reply: read(request, world, revision) } }));
    const fitting = tries.filter(({ outcome }) => isDeepStrictEqual(outcome, act.outcome));
    if (fitting.length === 0) {
      return [this.#differs("read", act, tries, names)];
    }
    this.#book.narrow(
      names,
      fitting.map(({ world }) => world),
    );
    return [];
  }

  #write(act: Recorded, base: bigint): Violation[] {
    const request = act.request as Write | Transact;
    const names = namesOf(request, this.#book);
    const tries = this.#book
      .worlds(names)
      .map((world) => ({ world, ...write(request, world, base) }));
    const fitting = tries.filter(({ outcome }) => isDeepStrictEqual(outcome, act.outcome));
    if (fitting.length === 0) {
      return [this.#differs("write", act, tries, names)];
    }
    for (const name of names) {
      this.#book.note(
        name,
        fitting.map(({ world, changes }) => {
          const change = changes.get(identity(name));
          return change === undefined ? world.get(name) : change.state;
        }),
      );
    }
    return [];
  }

  /** A revision that any of some writes may have. */
  #fill(revision: bigint): Violation[] {
    const fillers = this.#holes.get(revision)!;
    const results = new Map<string, { name: Name; states: State[] }>();
    for (const { write: request } of fillers) {
      const { name } = request;
      const before = results.get(identity(name))?.states ?? [];
      const states = [...before, ...this.#resultsOf(request, revision)];
      results.set(identity(name), { name, states });
    }
    const possible = [...results.values()].filter(({ states }) => states.length > 0);
    for (const { name, states } of possible) {
      // If it was another entry that changed, this one is as it was.
      this.#book.note(
        name,
        possible.length === 1 ? states : [...this.#book.statesOf(name), ...states],
      );
    }
    return possible.length > 0 ? [] : [impossible(revision, fillers)];
  }

  #resultsOf(request: Write | ForeignWrite, revision: bigint): State[] {
    return this.#book
      .worlds([request.name])
      .map((world) => write(request, world, revision - 1n))
      .filter((effect) => effect.revision === revision)
      .map(({ changes }) => changes.get(identity(request.name))?.state);
  }

  #explainRefusals(revision: bigint, changed: readonly Name[]): Violation[] {
    while ((this.#refused.at(-1)?.window.floor ?? revision + 1n) <= revision) {
      this.#open.push(this.#refused.pop()!);
    }
    const ids = new Set(changed.map(identity));
    const over = this.#open.filter(({ window }) => window.ceiling < revision);
    this.#open = this.#open.filter((refused) => {
      const isWorthALook =
        refused.isNew ||
        refused.isEverywhere ||
        refused.names.some((name) => ids.has(identity(name)));
      refused.isNew = false;
      return (
        refused.window.ceiling >= revision && !(isWorthALook && this.#explains(refused, revision))
      );
    });
    return over.map(unfounded);
  }

  #explains({ act, request, names }: Refused, revision: bigint): boolean {
    return (
      !isRead(request) &&
      this.#book
        .worlds(names)
        .some((world) => isDeepStrictEqual(write(request, world, revision).outcome, act.outcome))
    );
  }

  #differs(
    rule: Rule,
    act: Recorded,
    tries: readonly { readonly outcome: unknown }[],
    names: readonly Name[],
  ): Violation {
    const should = tries.slice(0, 3).map(({ outcome }) => asText(outcome));
    const message = `the answer should be ${should.join(" or ") || "of what was there"}`;
    return { rule, message, operations: [act, ...this.#writersOf(names)] };
  }

  /** Who wrote these entries last. */
  #writersOf(names: readonly Name[]): Recorded[] {
    const states = names.flatMap((name) => this.#book.statesOf(name));
    const writers = states.map((state) => state && this.#taken.get(state.revision));
    return [...new Set(writers)].filter((writer) => writer !== undefined).slice(0, 4);
  }
}

function isRead(request: Recorded["request"]): request is Read {
  return request.do === "get" || request.do === "batchGet" || request.do === "list";
}

/** The entries that a request is about; of a listing those that its place has. */
function namesOf(request: Recorded["request"], book: Book): readonly Name[] {
  switch (request.do) {
    case "list":
      return book.namesIn(request.place);
    case "batchGet":
      return unique(request.names);
    case "transact":
      return unique([...request.checks, ...request.operations].map(({ name }) => name));
    default:
      return [request.name];
  }
}

/**
 * Whether a Transact's refusal may tell a revision that never was: that of an operation before the one
 * that failed, on the same entry. It depends on the plugin's revision at that moment.
 */
function writesTwice(request: Recorded["request"]): boolean {
  if (request.do !== "transact") {
    return false;
  }
  const written = request.operations.map(({ name }) => name);
  return unique(written).length < written.length;
}

function unique(names: readonly Name[]): Name[] {
  return [...new Map(names.map((name) => [identity(name), name])).values()];
}

/** Tells states that a read's reply rules out, so that not every combination must be tried. */
function shownBy({ outcome }: Recorded): (name: Name, state: State) => boolean {
  const shown = entriesIn(outcome);
  const revisions = new Map(shown.map((entry) => [identity(entry), entry.revision]));
  // What a list doesn't show may be on another page.
  const mayHideMore = outcome.kind === "ok" && outcome.reply.do === "list";
  return (name, state) =>
    mayHideMore
      ? !revisions.has(identity(name)) || revisions.get(identity(name)) === state?.revision
      : revisions.get(identity(name)) === state?.revision;
}

function halfDone(torn: Recorded, act: Recorded): Violation {
  const message = "an operation saw a revision in the midst of a Transact";
  return { rule: "read", message, operations: [torn, act] };
}

function impossible(revision: bigint, fillers: readonly Filler[]): Violation {
  const message = `revision ${revision} can't be a write of what was there`;
  return { rule: "no hole", message, operations: fillers.map(({ act }) => act) };
}

function unfounded({ act, window: { floor, ceiling } }: Refused): Violation {
  const message = `nothing from revision ${floor} to ${ceiling} explains it`;
  return { rule: "refusal", message, operations: [act] };
}
