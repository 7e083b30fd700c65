import { Patience } from "./patience.ts";
import type { Plugin } from "./postgres/plugins.ts";
import type { Binding } from "./service/binding.ts";
import { DatabaseUnavailable, ShuttingDown } from "./state/errors.ts";
import type { StateBounds } from "./state/limits.ts";
import { allPermissions, type Permissions } from "./state/permissions.ts";
import { restrict } from "./state/restricted-store.ts";
import type { Store } from "./state/store.ts";

/** How long calls wait, from the binding's start, for the database's first answer. */
const maxWaitMs = 5_000;

/** What has been found in the database. */
interface Found {
  readonly plugin: Plugin;
  readonly makeStore: (bounds: StateBounds) => Store;
  /** With these bounds, before any permission is asked. */
  readonly unrestricted: Store;
  readonly store: Store;
}

/** A binding that listens before the database has said which plugin it serves. */
export class BoundPlugin implements Binding {
  readonly version: string;
  #bounds: StateBounds;
  #permissions: Permissions;
  #found: Found | undefined;
  #isDraining = false;
  /** With the database's first answer. */
  readonly #start = new Patience(maxWaitMs);
  #waiting: Promise<void> | undefined;

  constructor(version: string, bounds: StateBounds, permissions: Permissions = allPermissions) {
    this.version = version;
    this.#bounds = bounds;
    this.#permissions = permissions;
    this.#waiting = this.#start.over.then(() => {
      this.#waiting = undefined;
    });
  }

  get bounds(): StateBounds {
    return this.#bounds;
  }

  get permissions(): Permissions {
    return this.#permissions;
  }

  /** The plugin, once it was found. */
  get found(): Plugin | undefined {
    return this.#found?.plugin;
  }

  /**
   * Until the database has answered for the first time, or is known to be away, or was waited for long
   * enough. Undefined then: calls need wait no longer.
   */
  get waiting(): Promise<void> | undefined {
    return this.#waiting;
  }

  /** The database is away: calls fail until {@link bind}. */
  away(): void {
    this.#start.end();
  }

  /** From now on calls reach the store. */
  bind(plugin: Plugin, makeStore: (bounds: StateBounds) => Store): void {
    const unrestricted = makeStore(this.#bounds);
    const store = restrict(unrestricted, this.#permissions);
    this.#found = { plugin, makeStore, unrestricted, store };
    this.#start.end();
  }

  /** From now on calls may do this, within these bounds. Those under way go on as they began. */
  allow(permissions: Permissions = allPermissions, bounds = this.#bounds): void {
    const found = this.#found;
    const isBoundedAlike = JSON.stringify(bounds) === JSON.stringify(this.#bounds);
    this.#permissions = permissions;
    this.#bounds = bounds;
    if (found !== undefined) {
      const unrestricted = isBoundedAlike ? found.unrestricted : found.makeStore(bounds);
      this.#found = { ...found, unrestricted, store: restrict(unrestricted, permissions) };
    }
  }

  /** From now on new calls are refused; those that have their store finish. */
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

  #required(): Found {
    if (this.#found === undefined) {
      throw new DatabaseUnavailable();
    }
    return this.#found;
  }
}
