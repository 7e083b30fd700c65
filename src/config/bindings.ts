import { isLoopback, type ListenAddress } from "../rpc/listen-address.ts";
import { usageError } from "../start-error.ts";
import { parseAddress } from "./address.ts";
import type { BindingConfig, DatabaseConfig } from "./config.ts";
import { defaultListenAddress, demoPlugin } from "./limits.ts";

interface BindingOptions {
  readonly plugin: readonly string[];
  readonly listen: readonly string[];
  readonly insecure: boolean;
}

/** Pairs the plugins with the addresses, in the order in which both were given. */
export function readBindings(
  options: BindingOptions,
  database: DatabaseConfig,
): readonly BindingConfig[] {
  const plugins = pluginsOrDemo(options.plugin, database);
  const addresses = addressesOrDefault(options.listen, plugins.length);
  refuseRepeated(addresses);
  return plugins.map((plugin, index) => {
    const listen = parseAddress("--listen", addresses[index] ?? "");
    refuseReachable(listen, addresses[index] ?? "", options.insecure);
    return { plugin, listen };
  });
}

function pluginsOrDemo(plugins: readonly string[], database: DatabaseConfig): readonly string[] {
  if (plugins.length > 0) return plugins;
  if (database.kind === "embedded") return [demoPlugin];
  throw usageError(
    "--plugin is required with a given database: say which plugin's state to serve",
    "`plugin-state plugin list` shows the registered ones, `plugin-state plugin add KEY` adds one.",
  );
}

function addressesOrDefault(listens: readonly string[], plugins: number): readonly string[] {
  if (listens.length === plugins) return listens;
  if (listens.length === 0 && plugins === 1) return [defaultListenAddress];
  throw usageError(
    `each --plugin needs its own --listen: ${counted(plugins, "plugin")}, ${counted(listens.length, "listen address")}`,
  );
}

function counted(count: number, noun: string): string {
  const plural = noun.endsWith("s") ? `${noun}es` : `${noun}s`;
  return `${count} ${count === 1 ? noun : plural}`;
}

/** Port 0 takes another free port each time. */
function refuseRepeated(addresses: readonly string[]): void {
  const repeated = addresses.find(
    (address, index) => addresses.indexOf(address) < index && !address.endsWith(":0"),
  );
  if (repeated !== undefined) throw usageError(`--listen ${repeated} was given twice`);
}

/** What a descriptor is bound to isn't known here; the listener judges it. */
function refuseReachable(listen: ListenAddress, text: string, insecure: boolean): void {
  if (insecure || listen.kind === "fd" || isLoopback(listen)) return;
  throw usageError(
    `--listen ${text} can be reached from other machines, and this release has neither TLS nor tokens: whoever reaches it reads and writes the plugin's state`,
    "Listen on 127.0.0.1 or unix:/PATH, or give --insecure if the network itself is trusted.",
  );
}
