import { Reading } from "./series.ts";

/** What is told of each binding. Its name for its plugin is the operator's or the host's, not a worker's. */
export class BindingMetrics {
  readonly #serving = new Reading(
    {
      name: "plugin_state_binding_serving",
      help: "1 while calls for the plugin are served: it is registered, and the database serves; else 0.",
      labelNames: ["plugin"],
    },
    () =>
      [...this.#read()].map(([plugin, serves]) => ({ labels: { plugin }, value: serves ? 1 : 0 })),
  );
  /** All of them, for the registry. */
  readonly all = [this.#serving];
  #read: () => ReadonlyMap<string, boolean> = () => new Map();

  /** From now on these are told of. */
  watch(read: () => ReadonlyMap<string, boolean>): void {
    this.#read = read;
  }
}
