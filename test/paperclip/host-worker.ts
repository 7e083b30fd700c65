import { copyFile, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { HostDatabase } from "./host-database.ts";
import type { HostPlace, HostStore } from "./host-packages.ts";

const script = fileURLToPath(new URL("state-worker.js", import.meta.url));

/** How a worker names an entry. */
export type ScopeKey = HostPlace & { readonly stateKey: string };

/** A plugin's worker in a process of its own, under the host's manager. */
export interface HostWorker extends AsyncDisposable {
  /** What the worker's `ctx.state` does and returns. */
  get(key: ScopeKey): Promise<unknown>;
  set(key: ScopeKey, value: unknown): Promise<unknown>;
  delete(key: ScopeKey): Promise<unknown>;
}

interface Manager {
  startWorker(pluginId: string, options: object): Promise<unknown>;
  call(pluginId: string, method: string, params: object): Promise<{ readonly result?: unknown }>;
  stopAll(): Promise<void>;
}

/** Starts one as the newer host does, with the host's own store behind its state. */
export async function startHostWorker(
  database: HostDatabase,
  pluginId: string,
): Promise<HostWorker> {
  const { directory } = database.host;
  process.env["PAPERCLIP_LOG_LEVEL"] = "silent";
  const load = (path: string) =>
    import(pathToFileURL(join(directory, "node_modules/@paperclipai", path)).href);
  const { createPluginWorkerManager } = await load("server/dist/services/plugin-worker-manager.js");
  const { createHostClientHandlers } = await load("plugin-sdk/dist/index.js");
  const place = await mkdtemp(join(directory, "worker-"));
  const entrypointPath = join(place, "worker.mjs");
  await copyFile(script, entrypointPath);
  const capabilities = ["plugin.state.read", "plugin.state.write"];
  const manager: Manager = createPluginWorkerManager();
  const services = { state: stateService(database.store(), pluginId) };
  await manager.startWorker(pluginId, {
    entrypointPath,
    manifest: { id: "demo", apiVersion: 1, version: "1.0.0", displayName: "demo", capabilities },
    config: {},
    instanceInfo: { instanceId: "test", hostVersion: "test" },
    apiVersion: 1,
    hostHandlers: createHostClientHandlers({ pluginId, capabilities, services }),
    autoRestart: false,
  });
  const ask = async (verb: string, key: ScopeKey, value?: unknown) => {
    const params = { verb, place: key, value };
    const { result } = await manager.call(pluginId, "getData", { key: "state", params });
    return result;
  };
  return {
    get: (key) => ask("get", key),
    set: (key, value) => ask("set", key, value),
    delete: (key) => ask("delete", key),
    [Symbol.asyncDispose]: async () => {
      await manager.stopAll();
      await rm(place, { recursive: true, force: true });
    },
  };
}

/** As the host's services hand a worker's calls to the store. */
function stateService(store: HostStore, pluginId: string) {
  return {
    get: ({ scopeKind, stateKey, ...place }: ScopeKey) =>
      store.get(pluginId, scopeKind, stateKey, place),
    set: (key: ScopeKey & { readonly value: unknown }) => store.set(pluginId, key),
    delete: ({ scopeKind, stateKey, ...place }: ScopeKey) =>
      store.delete(pluginId, scopeKind, stateKey, place),
  };
}
