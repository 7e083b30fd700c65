import type { Plugin } from "./postgres/plugins.ts";
import type { Binding } from "./service/binding.ts";
import { DatabaseUnavailable, ShuttingDown } from "./state/errors.ts";
import type { StateBounds } from "./state/limits.ts";
import { allPermissions, type Permissions } from "./state/permissions.ts";
import { restrict } from "./state/restricted-store.ts";
import type { Store } from "./state/store.ts";

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

  constructor(version: string, bounds: StateBounds, permissions: Permissions = allPermissions) {
    this.version = version;
    this.#bounds = bounds;
    this.#permissions = permissions;
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

  /** From now on calls reach the store. */
  bind(plugin: Plugin, makeStore: (bounds: StateBounds) => Store): void {
    const unrestricted = makeStore(this.#bounds);
    const store = restrict(unrestricted, this.#permissions);
    this.#found = { plugin, makeStore, unrestricted, store };
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
