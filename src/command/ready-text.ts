import type { DatabaseConfig, ServeConfig } from "../config/config.ts";
import { redactSecrets } from "../config/redact.ts";
import type { ReadyBinding } from "./host-line.ts";

const setRequest = `{"scope":{"kind":"SCOPE_KIND_INSTANCE"},"key":"greeting","valueJson":"\\"hello\\""}`;
const getRequest = `{"scope":{"kind":"SCOPE_KIND_INSTANCE"},"key":"greeting"}`;

/** What a person at a terminal reads when the sidecar runs: where it is, and a first call. */
export function readyText(config: ServeConfig, bindings: readonly ReadyBinding[]): string {
  const served = bindings.map(
    ({ plugin, pluginId, address }) =>
      `  plugin ${plugin} on ${address}${pluginId === null ? ", once it is registered" : ""}`,
  );
  return `
plugin-state is ready
${served.join("\n")}
  ${dataText(config.database)}
${firstCalls(bindings)}
Press Ctrl-C to stop.

`;
}

function dataText(database: DatabaseConfig): string {
  switch (database.kind) {
    case "embedded":
      return `data in ${database.dataDir} (an embedded PostgreSQL)`;
    case "url":
      return `data in ${redactSecrets(database.url)}`;
  }
}

function firstCalls(bindings: readonly ReadyBinding[]): string {
  const registered = bindings.filter(({ pluginId }) => pluginId !== null);
  const target = registered.map(({ address }) => grpcurlTarget(address)).find(Boolean);
  if (target === undefined) return "";
  const call = (rpc: string, request: string) =>
    `  grpcurl -plaintext -d '${request}' ${target} pluginstate.v1.PluginStateService/${rpc}`;
  return `
Try it, from another terminal:
${call("Set", setRequest)}
${call("Get", getRequest)}
`;
}

/** How grpcurl calls an address; undefined for an inherited descriptor, which has no name. */
function grpcurlTarget(address: string): string | undefined {
  if (address.startsWith("fd:")) return undefined;
  if (address.startsWith("unix:"))
    return `-unix ${shellWord(address.replace(/^unix:(\/\/)?/, ""))}`;
  return address.replace(/^(0\.0\.0\.0|\[::\]):/, "127.0.0.1:");
}

function shellWord(text: string): string {
  return /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
