import type { StateBounds } from "../state/limits.ts";
import type { Permissions } from "../state/permissions.ts";
import type { Store } from "../state/store.ts";

/**
 * What a listener is allowed: one plugin. Every handler gets the binding of the listener its call
 * came in on, and has no other way to a store.
 */
export interface Binding {
  readonly version: string;
  readonly bounds: StateBounds;
  readonly permissions: Permissions;
  /**
   * The plugin it serves.
   *
   * @throws {DatabaseUnavailable} until the database has been asked for the first time.
   */
  plugin(): { readonly id: string; readonly key: string };
  /**
   * The state of that plugin.
   *
   * @throws {DatabaseUnavailable} until the database has been asked for the first time.
   * @throws {ShuttingDown} when the sidecar has drained: its connections are gone, or cut.
   */
  store(): Store;
}
