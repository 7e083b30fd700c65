import { isDeepStrictEqual } from "node:util";
import {
  type BindingAddress,
  BindingServer,
  pluginService,
  type Surroundings,
} from "./binding-server.ts";
import { isSameAddress } from "./config/bindings.ts";
import type { BindingConfig } from "./config/config.ts";
import type { DatabaseFinding } from "./database-state.ts";
import { RegistryWatch } from "./registry-watch.ts";
import { StartError } from "./start-error.ts";
import type { StateBackend } from "./state-backend.ts";

/** What a reload did, as it is logged. */
interface Counts {
  added: number;
  /** In place. */
  updated: number;
  /** Made anew. */
  changed: number;
  removed: number;
  failed: number;
}

/** All bindings that a process serves. */
export class Bindings {
  readonly #surroundings: Surroundings;
  readonly #stopped = new AbortController();
  #servers: readonly BindingServer[];
  /** Those that a reload took away, until their last call has ended. */
  readonly #ending = new Set<BindingServer>();
  /** One reload at a time. Never rejects. */
  #reloading: Promise<unknown> = Promise.resolve();
  #registry: RegistryWatch | undefined;

  /** @throws {StartError} when a binding's token or TLS files can't be used. */
  constructor(configs: readonly BindingConfig[], surroundings: Surroundings) {
    this.#surroundings = surroundings;
    this.#servers = configs.map((config) => new BindingServer(config, surroundings));
    surroundings.watch.bindings?.watch(() => this.#statuses());
    this.#tellHealth();
  }

  /** What a host is told of them. */
  get addresses(): readonly BindingAddress[] {
    return this.#servers.map(({ address }) => address);
  }

  /** The plugins that are served. */
  get pluginIds(): readonly string[] {
    const ids = this.#servers.map(({ pluginId }) => pluginId);
    return [...new Set(ids)].filter((id) => id !== undefined);
  }

  /** Accepts connections. @throws {StartError} when one of them can't. */
  async open(): Promise<void> {
    for (const server of this.#servers) await server.open();
  }

  /**
   * Finds out which plugins are registered, and lets their calls reach the state. May be called again.
   *
   * @throws what says that the database can't be asked.
   */
  async bind(backend: StateBackend): Promise<void> {
    const servers = this.#servers;
    try {
      const found = await backend.find([...new Set(servers.map(({ config }) => config.plugin))]);
      for (const server of servers) server.follow(found.get(server.config.plugin), backend);
    } catch (error) {
      for (const server of servers) server.away();
      throw error;
    } finally {
      this.#tellHealth();
    }
  }

  /** From now on plugins come and go as the registry says. */
  followRegistry(backend: StateBackend): void {
    const { log } = this.#surroundings;
    const isMissing = () => this.#servers.some(({ pluginId }) => pluginId === undefined);
    const look = () => this.bind(backend);
    const registry = new RegistryWatch({ look, isMissing, log });
    this.#registry = registry;
    for (const server of this.#servers) server.lookBy(() => registry.now());
    registry.start();
  }

  /** The database is away, and can't say which plugins are registered. */
  away(): void {
    for (const server of this.#servers) server.away();
  }

  /** The database began to serve, or stopped to. */
  databaseChanged(finding: DatabaseFinding): void {
    const { database, watch } = this.#surroundings;
    database.set(finding);
    watch.database?.serves(finding.serves);
    this.#tellHealth();
    // Nobody knows what happens meanwhile.
    if (finding.serves) void this.#registry?.now();
    else this.away();
  }

  /**
   * Serves other bindings from now on: adds what is new, ends what is gone, and leaves alone what is as
   * it was. What changed in tokens, capabilities, scopes or quotas changes without a connection's
   * noticing; for other changes a binding is made anew. One that can't be is logged, goes on as it was,
   * and doesn't keep the others from it.
   */
  reload(configs: readonly BindingConfig[]): Promise<void> {
    const reloading = this.#reloading.then(() => this.#reload(configs));
    this.#reloading = reloading.catch(() => undefined);
    return reloading;
  }

  /** Ends all of them. */
  async close(graceMs: number): Promise<void> {
    this.#stopped.abort();
    this.#registry?.stop();
    const all = [...this.#servers, ...this.#ending];
    await Promise.all(all.map((server) => server.close(graceMs)));
    await this.#reloading;
  }

  async #reload(configs: readonly BindingConfig[]): Promise<void> {
    if (this.#stopped.signal.aborted) return;
    const pairs = pair(configs, this.#servers);
    const kept = new Set(pairs.flatMap(({ server }) => server ?? []));
    const gone = this.#servers.filter((server) => !kept.has(server));
    await Promise.all(gone.map((server) => this.#end(server)));
    const counts: Counts = { added: 0, updated: 0, changed: 0, removed: gone.length, failed: 0 };
    const servers: BindingServer[] = [];
    for (const { config, server } of pairs) {
      const served = await this.#applyOrKeep(config, server, counts);
      if (served !== undefined) servers.push(served);
      if (server !== undefined) kept.delete(server);
      // Known at once: should the process be told to stop meanwhile, this one too has to end.
      this.#servers = [...servers, ...kept];
    }
    this.#servers = servers;
    this.#tellHealth();
    await this.#registry?.now();
    const { addresses: bindings } = this;
    this.#surroundings.log.info({ ...counts, bindings }, "read the configuration again");
  }

  /** What serves in the end: the binding as it is to be or, when it can't be had, as it was. */
  async #applyOrKeep(
    config: BindingConfig,
    server: BindingServer | undefined,
    counts: Counts,
  ): Promise<BindingServer | undefined> {
    const { log } = this.#surroundings;
    try {
      return await this.#apply(config, server, counts);
    } catch (error) {
      counts.failed += 1;
      const err = { err: error, plugin: config.plugin };
      if (server === undefined || server.isClosed) {
        log.error(err, "a binding of the configuration can't be served");
        return undefined;
      }
      log.error(err, "a binding of the configuration can't be served; it stays as it was");
      return server;
    }
  }

  async #apply(
    config: BindingConfig,
    server: BindingServer | undefined,
    counts: Counts,
  ): Promise<BindingServer> {
    if (server?.fits(config)) {
      const isAsItWas = isDeepStrictEqual(server.config, config);
      server.update(config);
      if (!isAsItWas) counts.updated += 1;
      return server;
    }
    const next = new BindingServer(config, this.#surroundings);
    next.lookBy(async () => this.#registry?.now());
    try {
      await this.#openInstead(next, server);
      this.#stopped.signal.throwIfAborted();
    } catch (error) {
      await next.close(0);
      throw error;
    }
    if (server !== undefined) await this.#end(server);
    counts[server === undefined ? "added" : "changed"] += 1;
    return next;
  }

  /** Opens one before the other ends; where both want the same address, the other steps aside. */
  async #openInstead(next: BindingServer, old: BindingServer | undefined): Promise<void> {
    if (old === undefined || !isSameAddress(old.config.listen, next.config.listen)) {
      try {
        return await next.open();
      } catch (error) {
        // The same address may have two names.
        if (old === undefined || !isTaken(error)) throw error;
      }
    }
    if (next.config.listen.kind === "fd") {
      throw new Error("a descriptor can be listened on once only: this change needs a restart");
    }
    try {
      await old.stopAccepting();
      await next.open();
    } catch (error) {
      await this.#restore(old);
      throw error;
    }
  }

  async #restore(old: BindingServer): Promise<void> {
    try {
      await old.open();
    } catch (error) {
      const { log } = this.#surroundings;
      log.error({ err: error, plugin: old.config.plugin }, "lost a binding's address");
      await this.#end(old);
    }
  }

  /** Its address is free when this returns; its calls finish by themselves. */
  async #end(server: BindingServer): Promise<void> {
    const { config, log } = this.#surroundings;
    const tell = (error: unknown) => log.error({ err: error }, "while ending a binding");
    await server.stopAccepting().catch(tell);
    this.#ending.add(server);
    server
      .close(config.drainTimeoutMs)
      .catch(tell)
      .finally(() => this.#ending.delete(server));
  }

  /** Whether calls of each are served, by the binding's name for its plugin. */
  #statuses(): ReadonlyMap<string, boolean> {
    const { database } = this.#surroundings;
    return new Map(
      this.#servers.map(({ config, pluginId }) => [
        config.plugin,
        database.serves && pluginId !== undefined,
      ]),
    );
  }

  /** The process serves while anything of it does. */
  #tellHealth(): void {
    const { database, health } = this.#surroundings;
    const statuses = this.#statuses();
    const anyServes = statuses.size === 0 || [...statuses.values()].includes(true);
    const parts = [...statuses].map(([plugin, serves]) => [pluginService(plugin), serves] as const);
    health.setServing(database.serves && anyServes, new Map(parts));
  }
}

interface Pair {
  readonly config: BindingConfig;
  readonly server: BindingServer | undefined;
}

/** Each configuration, with the server that it is to replace: at its address; else of its plugin. */
function pair(configs: readonly BindingConfig[], servers: readonly BindingServer[]): Pair[] {
  const free = new Set(servers);
  const take = (isIt: (server: BindingServer) => boolean): BindingServer | undefined => {
    const server = [...free].find(isIt);
    if (server !== undefined) free.delete(server);
    return server;
  };
  const there = configs.map((config) => ({
    config,
    server: take(
      ({ config: now }) =>
        isSameAddress(now.listen, config.listen) &&
        // Any number of bindings may have asked for any port.
        (now.plugin === config.plugin || !isAnyPort(config)),
    ),
  }));
  return there.map(({ config, server }) => ({
    config,
    server: server ?? take(({ config: now }) => now.plugin === config.plugin),
  }));
}

function isAnyPort({ listen }: BindingConfig): boolean {
  return listen.kind === "tcp" && listen.port === 0;
}

function isTaken(error: unknown): boolean {
  return error instanceof StartError && error.reason === "ADDRESS_IN_USE";
}
