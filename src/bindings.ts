import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { type BindingAddress, BindingServer, type Surroundings } from "./binding-server.ts";
import { isSameAddress } from "./config/bindings.ts";
import type { BindingConfig } from "./config/config.ts";
import { StartError } from "./start-error.ts";
import type { StateBackend } from "./state-backend.ts";

/** How often a plugin is looked for that a reload named while the database was away. */
const findAgainMs = 1_000;

/** All bindings that a process serves. */
export class Bindings {
  readonly #surroundings: Surroundings;
  readonly #stopped = new AbortController();
  #servers: readonly BindingServer[];
  /** Those that a reload took away, until their last call has ended. */
  readonly #ending = new Set<BindingServer>();
  /** One reload at a time. */
  #reloading: Promise<void> = Promise.resolve();

  /** @throws {StartError} when a binding's token or TLS files can't be used. */
  constructor(configs: readonly BindingConfig[], surroundings: Surroundings) {
    this.#surroundings = surroundings;
    this.#servers = configs.map((config) => new BindingServer(config, surroundings));
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
   * Lets calls reach the state. May be called again.
   *
   * @throws {StartError} when a plugin isn't registered.
   * @throws what says that the database can't be asked.
   */
  async bind(backend: StateBackend): Promise<void> {
    for (const server of this.#servers) {
      if (server.pluginId === undefined) await server.bind(backend);
    }
  }

  /** The database is away: calls fail until {@link bind}. */
  away(): void {
    for (const server of this.#servers) server.away();
  }

  /**
   * Serves other bindings from now on: adds what is new, ends what is gone, and leaves alone what is as
   * it was. What changed in tokens, capabilities, scopes or quotas changes without a connection's
   * noticing; for other changes a binding is ended and made anew. One that can't be served is
   * logged, and doesn't keep the others from it.
   */
  reload(configs: readonly BindingConfig[], backend: StateBackend): Promise<void> {
    this.#reloading = this.#reloading.then(() => this.#reload(configs, backend));
    return this.#reloading;
  }

  /** Ends all of them. */
  async close(graceMs: number): Promise<void> {
    this.#stopped.abort();
    const all = [...this.#servers, ...this.#ending];
    await Promise.all(all.map((server) => server.close(graceMs)));
  }

  async #reload(configs: readonly BindingConfig[], backend: StateBackend): Promise<void> {
    if (this.#stopped.signal.aborted) return;
    const pairs = pair(configs, this.#servers);
    const kept = new Set(pairs.flatMap(({ server }) => server ?? []));
    const gone = this.#servers.filter((server) => !kept.has(server));
    await this.#end(gone);
    const counts = { added: 0, updated: 0, changed: 0, removed: gone.length, failed: 0 };
    const servers: BindingServer[] = [];
    for (const { config, server } of pairs) {
      try {
        servers.push(await this.#apply(config, server, backend, counts));
      } catch (error) {
        counts.failed += 1;
        this.#tell(config, error);
        if (server !== undefined && !server.isClosed) servers.push(server);
      }
      // Known at once: should the process be told to stop meanwhile, this one too has to end.
      this.#servers = [...servers, ...[...kept].filter((other) => !servers.includes(other))];
    }
    this.#servers = servers;
    const { addresses: bindings } = this;
    this.#surroundings.log.info({ ...counts, bindings }, "read the configuration again");
  }

  async #apply(
    config: BindingConfig,
    server: BindingServer | undefined,
    backend: StateBackend,
    counts: { added: number; updated: number; changed: number },
  ): Promise<BindingServer> {
    if (server?.fits(config)) {
      const isAsItWas = isDeepStrictEqual(server.config, config);
      server.update(config);
      if (!isAsItWas) counts.updated += 1;
      return server;
    }
    if (server !== undefined && config.listen.kind === "fd") {
      throw new Error("a descriptor can be listened on once only: this change needs a restart");
    }
    const next = new BindingServer(config, this.#surroundings);
    if (server !== undefined) await this.#end([server]);
    await next.open();
    await this.#bindNow(next, backend);
    counts[server === undefined ? "added" : "changed"] += 1;
    return next;
  }

  /** A plugin that isn't registered is an error; one that can't be looked for now is looked for later. */
  async #bindNow(server: BindingServer, backend: StateBackend): Promise<void> {
    try {
      await server.bind(backend);
    } catch (error) {
      if (error instanceof StartError) {
        await server.close(0);
        throw error;
      }
      void this.#bindLater(server, backend);
    }
  }

  async #bindLater(server: BindingServer, backend: StateBackend): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted && !server.isClosed && server.pluginId === undefined) {
      await sleep(findAgainMs, undefined, { signal, ref: false }).catch(() => undefined);
      try {
        await server.bind(backend);
      } catch (error) {
        if (error instanceof StartError) this.#tell(server.config, error);
      }
    }
  }

  /** Their addresses are free when this returns; their calls finish by themselves. */
  async #end(servers: readonly BindingServer[]): Promise<void> {
    const { config, log } = this.#surroundings;
    await Promise.all(servers.map((server) => server.stopAccepting()));
    for (const server of servers) {
      this.#ending.add(server);
      server
        .close(config.drainTimeoutMs)
        .catch((error: unknown) => log.error({ err: error }, "while ending a binding"))
        .finally(() => this.#ending.delete(server));
    }
  }

  #tell({ plugin }: BindingConfig, error: unknown): void {
    const { log } = this.#surroundings;
    log.error({ err: error, plugin }, "a binding of the configuration can't be served");
  }
}

/** Each configuration, with the server that has its address, if there is one. */
function pair(
  configs: readonly BindingConfig[],
  servers: readonly BindingServer[],
): { readonly config: BindingConfig; readonly server: BindingServer | undefined }[] {
  const free = new Set(servers);
  return configs.map((config) => {
    const server = [...free].find(
      (candidate) =>
        isSameAddress(candidate.config.listen, config.listen) &&
        // Any number of bindings may have asked for any port.
        (candidate.config.plugin === config.plugin || !isAnyPort(config)),
    );
    if (server !== undefined) free.delete(server);
    return { config, server };
  });
}

function isAnyPort({ listen }: BindingConfig): boolean {
  return listen.kind === "tcp" && listen.port === 0;
}
