import type { Cancellation } from "./cancellation.ts";
import type { EntryName, Scope } from "./entry.ts";
import { CapabilityDenied, ScopeDenied } from "./errors.ts";
import { allowsAll, allowsScope, type Capability, type Permissions } from "./permissions.ts";
import type { DeleteRange, ListEntries, ListScopes, Operation, Write } from "./requests.ts";
import type { Store } from "./store.ts";

/** The store as a binding with these permissions may use it. */
export function restrict(store: Store, permissions: Permissions): Store {
  return allowsAll(permissions) ? store : new RestrictedStore(store, permissions);
}

/**
 * A store that refuses what isn't allowed, whatever is there.
 *
 * Its methods also reject with {@link CapabilityDenied} and {@link ScopeDenied}, before anything is
 * read or written. A condition needs no right to read, though it tells whether an entry is there and
 * its revision: without it nobody could write safely.
 */
class RestrictedStore implements Store {
  readonly #store: Store;
  readonly #permissions: Permissions;

  constructor(store: Store, permissions: Permissions) {
    this.#store = store;
    this.#permissions = permissions;
  }

  async get(name: EntryName, signal: Cancellation) {
    this.#require("plugin.state.read");
    this.#requireScope(name.scope);
    return await this.#store.get(name, signal);
  }

  async batchGet(names: readonly EntryName[], signal: Cancellation) {
    this.#require("plugin.state.read");
    this.#requireScopes(names);
    return await this.#store.batchGet(names, signal);
  }

  async write(write: Write, signal: Cancellation) {
    this.#require("plugin.state.write");
    if (write.operations.some(readsToo)) {
      this.#require("plugin.state.read");
    }
    this.#requireScopes(write.checks.map(({ name }) => name));
    this.#requireScopes(write.operations.map(({ name }) => name));
    return await this.#store.write(write, signal);
  }

  async deleteRange(range: DeleteRange, signal: Cancellation) {
    this.#require("plugin.state.write");
    this.#requireScope(range.scope);
    return await this.#store.deleteRange(range, signal);
  }

  /** Places that aren't allowed are left out: a page may be short, but isn't empty while there is more. */
  async listScopes(list: ListScopes, signal: Cancellation) {
    this.#require("plugin.state.read");
    for (let { after } = list; ; ) {
      signal.throwIfAborted();
      const page = await this.#store.listScopes({ ...list, after }, signal);
      const scopes = page.scopes.filter(({ scope }) => allowsScope(this.#permissions, scope));
      if (scopes.length > 0 || !page.more) {
        return { ...page, scopes };
      }
      after = page.scopes.at(-1);
    }
  }

  async list(list: ListEntries, signal: Cancellation) {
    this.#require("plugin.state.read");
    this.#requireScope(list.scope);
    return await this.#store.list(list, signal);
  }

  #require(capability: Capability): void {
    if (!this.#permissions.capabilities.includes(capability)) {
      throw new CapabilityDenied(capability);
    }
  }

  #requireScopes(names: readonly EntryName[]): void {
    for (const { scope } of names) {
      this.#requireScope(scope);
    }
  }

  #requireScope(scope: Scope): void {
    if (!allowsScope(this.#permissions, scope)) {
      throw new ScopeDenied(scope.kind);
    }
  }
}

/** An update answers its value, and bounds on it are questions about it. */
function readsToo({ kind, returnPrevious }: Operation): boolean {
  return returnPrevious || (kind !== "set" && kind !== "delete");
}
