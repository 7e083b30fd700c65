import { isUuid } from "../config/plugin-name.ts";
import type { Pool } from "./pool.ts";
import { pluginStatements, sweepExternalWrites } from "./statements.ts";

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
  async find(name: string): Promise<Plugin | undefined> {
    return (await this.findAll([name])).get(name);
  }

  /** The plugins with these keys or UUIDs, by them; those that there are. A UUID is nobody's key. */
  async findAll(names: readonly string[]): Promise<Map<string, Plugin>> {
    const rows = await this.#pool.run<{ id: string; plugin_key: string }>(
      this.#statements.findPlugins,
      [names.filter(isUuid), names.filter((name) => !isUuid(name))],
    );
    const plugins = rows.map(({ id, plugin_key: key }) => ({ id, key }));
    const byId = new Map(plugins.map((plugin) => [plugin.id, plugin]));
    const byKey = new Map(plugins.map((plugin) => [plugin.key, plugin]));
    const found = new Map<string, Plugin>();
    for (const name of names) {
      const plugin = isUuid(name) ? byId.get(name.toLowerCase()) : byKey.get(name);
      if (plugin !== undefined) found.set(name, plugin);
    }
    return found;
  }

  /**
   * Prepares a plugin that is to be served: makes its counter if there is none, and gives its external writes their
   * revisions, also in a server that the database was restored to.
   */
  async prepare({ id }: Plugin): Promise<void> {
    let more = true;
    while (more) {
      const [row] = await this.#pool.run<{ more: boolean }>(sweepExternalWrites, [id]);
      more = row?.more === true;
    }
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
