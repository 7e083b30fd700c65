import type { Pool } from "./pool.ts";
import { pluginStatements } from "./statements.ts";

/** A plugin in the host's registry. */
export interface Plugin {
  readonly id: string;
  readonly key: string;
}

/** A plugin as `plugin list` shows it. */
export interface ListedPlugin extends Plugin {
  readonly version: string;
  readonly status: string;
  readonly revision: bigint;
}

/** A plugin to register. */
export interface NewPlugin {
  readonly key: string;
  readonly id?: string;
  readonly packageName: string;
  readonly version: string;
}

/** The host's registry of plugins, in the schema of the state. */
export class Plugins {
  readonly #pool: Pool;
  readonly #statements: ReturnType<typeof pluginStatements>;

  constructor(pool: Pool, stateSchema: string) {
    this.#pool = pool;
    this.#statements = pluginStatements(stateSchema);
  }

  /** The plugin with this key or UUID; undefined when there is none. */
  async find(keyOrId: string): Promise<Plugin | undefined> {
    const rows = await this.#pool.run<{ id: string; plugin_key: string }>(
      this.#statements.findPlugin,
      [keyOrId],
    );
    return rows[0] && { id: rows[0].id, key: rows[0].plugin_key };
  }

  /**
   * Registers a plugin and returns it. One that is registered under this key is returned as it is;
   * undefined when the UUID asked for belongs to another plugin.
   */
  async add({ key, id, packageName, version }: NewPlugin): Promise<Plugin | undefined> {
    await this.#pool.run(this.#statements.addPlugin, [id ?? null, key, packageName, version]);
    return await this.find(key);
  }

  /** Every plugin, by key. */
  async list(): Promise<ListedPlugin[]> {
    const rows = await this.#pool.run<{
      id: string;
      plugin_key: string;
      version: string;
      status: string;
      revision: bigint;
    }>(this.#statements.listPlugins, []);
    return rows.map(({ plugin_key: key, ...plugin }) => ({ ...plugin, key }));
  }
}
