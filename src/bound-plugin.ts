import type { Plugin } from "./postgres/plugins.ts";
import type { Binding } from "./service/binding.ts";
import { DatabaseUnavailable, ShuttingDown } from "./state/errors.ts";
import type { StateBounds } from "./state/limits.ts";
import type { Store } from "./state/store.ts";

/** A binding that listens before the database has said which plugin it serves. */
export class BoundPlugin implements Binding {
  readonly version: string;
  readonly bounds: StateBounds;
  #bound: { readonly plugin: Plugin; readonly store: Store } | undefined;
  #isDraining = false;

  constructor(version: string, bounds: StateBounds) {
    this.version = version;
    this.bounds = bounds;
  }

  /** From now on calls reach the store. */
  bind(plugin: Plugin, store: Store): void {
    this.#bound = { plugin, store };
  }

  /** No connection is left: what still comes out of one that was cut is refused. */
  drain(): void {
    this.#isDraining = true;
  }

  plugin(): Plugin {
    return this.#required().plugin;
  }

  store(): Store {
    if (this.#isDraining) {
      throw new ShuttingDown();
    }
    return this.#required().store;
  }

  #required() {
    if (this.#bound === undefined) {
      throw new DatabaseUnavailable();
    }
    return this.#bound;
  }
}
