import { isLoopback, type ListenAddress } from "../rpc/listen-address.ts";
import { usageError } from "../start-error.ts";
import { capabilities, type Permissions } from "../state/permissions.ts";
import { parseAddress } from "./address.ts";
import { isCapability, parseAllowedScope } from "./allowed.ts";
import type { BindingConfig, DatabaseConfig, Read, TlsFiles, TokenSource } from "./config.ts";
import { defaultListenAddress, demoPlugin } from "./limits.ts";
import { serveOptions } from "./options.ts";
import { nameAsGiven, type Resolved } from "./resolve.ts";

type Given = Resolved<typeof serveOptions>;

/** The options that a configuration file replaces. */
const ofBindings = [
  "plugin",
  "listen",
  "token",
  "tokenFile",
  "tlsCertFile",
  "tlsKeyFile",
  "tlsClientCaFile",
  "capability",
  "scope",
] as const;

/**
 * Pairs the plugins with the addresses, in the order in which both were given. None when they are in a
 * configuration file.
 */
export function readBindings(
  given: Given,
  database: DatabaseConfig,
): Read<readonly BindingConfig[]> {
  if (given.values.config !== undefined) {
    refuseBesideFile(given);
    return { config: [], warnings: [] };
  }
  const { values } = given;
  const plugins = pluginsOrDemo(values.plugin, database);
  const addresses = addressesOrDefault(values.listen, plugins.length);
  refuseRepeated(addresses);
  const shared = {
    tokens: tokensOf(given, plugins.length),
    tls: tlsOf(given),
    permissions: permissionsOf(given),
  };
  const bindings = plugins.map((plugin, index) => {
    const text = addresses[index] ?? "";
    const binding = { plugin, listen: parseAddress("--listen", text), ...shared };
    if (!values.insecure) refuseOpen(binding, `--listen ${text}`, "--insecure");
    return binding;
  });
  return { config: bindings, warnings: visibleToken(given) };
}

/**
 * Refuses a listener that anybody on the network could use. What a descriptor is bound to isn't known
 * here; the listener judges it.
 *
 * @throws {StartError} a usage error.
 */
export function refuseOpen(binding: BindingConfig, name: string, insecure: string): void {
  const { listen } = binding;
  if (listen.kind === "fd" || isLoopback(listen) || isGuarded(binding)) return;
  throw usageError(
    `${name} can be reached from other machines: whoever reaches it reads and writes the plugin's state`,
    `Listen on 127.0.0.1 or unix:/PATH; or serve TLS and demand a token or client certificates; or give ${insecure} if the network itself is trusted.`,
  );
}

/** Whether a listener may be reached from other machines: what passes is secret, and strangers are refused. */
export function isGuarded({ tls, tokens }: BindingConfig): boolean {
  return tls !== undefined && (tokens !== undefined || tls.clientCaFile !== undefined);
}

/** Port 0 takes another free port each time. */
export function refuseRepeated(addresses: readonly string[]): void {
  const repeated = addresses.find(
    (address, index) => addresses.indexOf(address) < index && !address.endsWith(":0"),
  );
  if (repeated !== undefined) throw usageError(`--listen ${repeated} was given twice`);
}

function refuseBesideFile({ sources }: Given): void {
  const beside = ofBindings.find((name) => sources[name] !== "default");
  if (beside === undefined) return;
  const name = nameAsGiven(serveOptions[beside], sources[beside]);
  const file = nameAsGiven(serveOptions.config, sources.config);
  throw usageError(`${name} and ${file} exclude each other: the file says what each binding has`);
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

function tokensOf({ values, sources }: Given, plugins: number): TokenSource | undefined {
  const { token, tokenFile } = values;
  if (token === undefined && tokenFile === undefined) return undefined;
  if (token !== undefined && tokenFile !== undefined) {
    throw usageError("--token and --token-file exclude each other");
  }
  if (plugins > 1) {
    throw usageError(
      "a token is good for one plugin only, and several are served",
      "Give each its own in a file: --config FILE.",
    );
  }
  return token === undefined
    ? { kind: "file", path: tokenFile ?? "" }
    : { kind: "text", token, name: nameAsGiven(serveOptions.token, sources.token) };
}

function tlsOf({ values }: Given): TlsFiles | undefined {
  const { tlsCertFile: certFile, tlsKeyFile: keyFile, tlsClientCaFile: clientCaFile } = values;
  if (certFile !== undefined && keyFile !== undefined) return { certFile, keyFile, clientCaFile };
  if (certFile === undefined && keyFile === undefined && clientCaFile === undefined) {
    return undefined;
  }
  throw usageError("TLS needs both --tls-cert-file and --tls-key-file");
}

function permissionsOf({ values }: Given): Permissions | undefined {
  const { capability, scope } = values;
  if (capability.length === 0 && scope.length === 0) return undefined;
  const scopes = scope.map(parseAllowedScope).filter((allowed) => allowed !== undefined);
  return {
    capabilities: capability.length > 0 ? capability.filter(isCapability) : capabilities,
    scopes: scopes.length > 0 ? scopes : undefined,
  };
}

function visibleToken({ sources }: Given): string[] {
  const { flag, env } = serveOptions.token;
  return sources.token === "flag"
    ? [`the token in ${flag} is visible to everybody on this machine (ps); use ${env}`]
    : [];
}

/** An address as texts compare it: to tell whether two are the same. */
export function isSameAddress(one: ListenAddress, other: ListenAddress): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}
