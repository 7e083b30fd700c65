import { Patience } from "./patience.ts";
import type { Plugin } from "./postgres/plugins.ts";
import type { Binding } from "./service/binding.ts";
import { DatabaseUnavailable, PluginNotRegistered, ShuttingDown } from "./state/errors.ts";
import type { StateBounds } from "./state/limits.ts";
import { allPermissions, type Permissions } from "./state/permissions.ts";
import { restrict } from "./state/restricted-store.ts";
import type { Store } from "./state/store.ts";

/** How long calls wait, from the binding's start, for the database's first answer. */
const maxWaitMs = 5_000;

/** What a binding begins with. */
export interface BoundPluginOptions {
  readonly version: string;
  /** The plugin's key or UUID, as the binding names it. */
  readonly name: string;
  readonly bounds: StateBounds;
  readonly permissions: Permissions | undefined;
  /** What is wrong with the database, so that it mustn't be asked. */
  readonly problem: () => string | undefined;
}

/** What has been found in the database. */
interface Found {
  readonly plugin: Plugin;
  readonly makeStore: (bounds: StateBounds) => Store;
  /** With these bounds, before any permission is asked. */
  readonly unrestricted: Store;
  readonly store: Store;
}

/**
 * The plugin of a binding, which listens before the database has said which one that is, and goes on when it
 * is removed and installed again.
 */
export class BoundPlugin implements Binding {
  readonly version: string;
  readonly #name: string;
  readonly #problem: () => string | undefined;
  #bounds: StateBounds;
  #permissions: Permissions;
  #found: Found | undefined;
  /** The last one that was found. */
  #last: Plugin | undefined;
  /** The registry was asked, and hasn't got it. */
  #isMissing = false;
  #isDraining = false;
  /** With the database's first answer. */
  readonly #start = new Patience(maxWaitMs);
  #starting: Promise<void> | undefined;
  #look: (() => Promise<void>) | undefined;

  constructor({ version, name, bounds, permissions, problem }: BoundPluginOptions) {
    this.version = version;
    this.#name = name;
    this.#problem = problem;
    this.#bounds = bounds;
    this.#permissions = permissions ?? allPermissions;
    this.#starting = this.#start.over.then(() => {
      this.#starting = undefined;
    });
  }

  get bounds(): StateBounds {
    return this.#bounds;
  }

  get permissions(): Permissions {
    return this.#permissions;
  }

  /** The plugin, while it is known to be registered. */
  get found(): Plugin | undefined {
    return this.#found?.plugin;
  }

  /**
   * What a call has to wait for: the database's first answer, or that it's known to be away; while the plugin
   * isn't registered, another look whether it is by now. Bounded; undefined when there's nothing to wait for.
   */
  get waiting(): Promise<void> | undefined {
    if (this.#found !== undefined) return undefined;
    return this.#starting ?? this.#look?.();
  }

  /** Nobody can tell whether the plugin is registered: the database is away. */
  away(): void {
    this.#isMissing = false;
    this.#start.end();
  }

  /** It isn't registered: calls fail, after another look, until {@link bind}. */
  missing(): void {
    this.#found = undefined;
    this.#isMissing = true;
    this.#start.end();
  }

  /** From now on calls reach the store. One that has the same id keeps it. */
  bind(plugin: Plugin, makeStore: (bounds: StateBounds) => Store): void {
    this.#isMissing = false;
    this.#last = plugin;
    if (this.#found?.plugin.id === plugin.id) {
      this.#found = { ...this.#found, plugin };
    } else {
      const unrestricted = makeStore(this.#bounds);
      const store = restrict(unrestricted, this.#permissions);
      this.#found = { plugin, makeStore, unrestricted, store };
    }
    this.#start.end();
  }

  /** Has calls that find no plugin look again by this; it resolves after the look, and never rejects. */
  lookBy(look: () => Promise<void>): void {
    this.#look = look;
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
    const plugin = this.#found?.plugin ?? this.#last;
    if (plugin === undefined) throw this.#notFound();
    return plugin;
  }

  store(): Store {
    if (this.#isDraining) {
      throw new ShuttingDown();
    }
    const problem = this.#problem();
    if (problem !== undefined) {
      throw new DatabaseUnavailable({ cause: new Error(problem) });
    }
    if (this.#found === undefined) {
      throw this.#notFound();
    }
    return this.#found.store;
  }

  #notFound(): Error {
    return this.#isMissing
      ? new PluginNotRegistered(this.#last?.id ?? this.#name)
      : new DatabaseUnavailable();
  }
}
