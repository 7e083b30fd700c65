import { isDeepStrictEqual } from "node:util";
import type { Entries, State } from "./model.ts";
import { identity, type Name } from "./operation.ts";

/** A history of which nothing can be said: more ways in which it may be right than can be tried. */
export class TooManyWorlds extends Error {
  constructor() {
    super("too many unknown outcomes and foreign writes at once to check this history");
  }
}

const maxWorlds = 16_384;

interface Line {
  readonly name: Name;
  /** What may be there: one state, but after a revision that several writes may have. */
  readonly states: readonly State[];
}

/** A plugin's entries during a replay, each with all that it may be. */
export class Book {
  readonly #lines = new Map<string, Line>();
  readonly #names = new Map<string, Name[]>();

  /** The names that a place has or had. */
  namesIn(place: string): readonly Name[] {
    return this.#names.get(place) ?? [];
  }

  statesOf(name: Name): readonly State[] {
    return this.#lines.get(identity(name))?.states ?? [undefined];
  }

  /** Says all that an entry may be from now on. */
  note(name: Name, states: readonly State[]): void {
    const key = identity(name);
    if (!this.#lines.has(key)) {
      this.#names.set(name.place, [...this.namesIn(name.place), name]);
    }
    this.#lines.set(key, { name, states: distinct(states) });
  }

  /**
   * Each way in which these entries may be at once. Throws when there are too many to try.
   *
   * @param isShown Leaves out what a reply shows not to be.
   */
  worlds(names: readonly Name[], isShown: (name: Name, state: State) => boolean = yes): World[] {
    let worlds = [new World()];
    for (const name of names) {
      const all = this.statesOf(name);
      const states = all.length === 1 ? all : all.filter((state) => isShown(name, state));
      if (worlds.length * states.length > maxWorlds) {
        throw new TooManyWorlds();
      }
      worlds = worlds.flatMap((world) => states.map((state) => world.with(name, state)));
    }
    return worlds;
  }

  /** Forgets the ways that turned out not to be. */
  narrow(names: readonly Name[], worlds: readonly World[]): void {
    for (const name of names) {
      if (this.statesOf(name).length > 1) {
        this.note(
          name,
          worlds.map((world) => world.get(name)),
        );
      }
    }
  }
}

const yes = () => true;

/** Some entries in one way in which they may be. */
export class World implements Entries {
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

  with(name: Name, state: State): World {
    return new World(new Map(this.#states).set(identity(name), state));
  }
}

function distinct(states: readonly State[]): readonly State[] {
  return states.length === 1
    ? states
    : states.filter(
        (state, index) => states.findIndex((other) => isDeepStrictEqual(other, state)) === index,
      );
}
