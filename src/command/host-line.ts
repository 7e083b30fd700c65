import { redactSecrets } from "../config/redact.ts";
import type { StartError } from "../start-error.ts";
import { version } from "../version.ts";
import { print } from "./output.ts";

/** The version of the contract between host and sidecar: of these lines, signals and exit codes. */
const protocol = 1;

/** A listener that is open: where, and whose. */
export interface ReadyBinding {
  readonly plugin: string;
  /** Null while the plugin isn't registered. */
  readonly pluginId: string | null;
  readonly address: string;
}

/** What is open: the plugins' listeners, and where metrics, and health alone, are served, if they are. */
export interface ReadyListeners {
  readonly bindings: readonly ReadyBinding[];
  readonly metrics?: string | undefined;
  readonly healthAddress?: string | undefined;
}

/** Tells the host on stdout that every listener answers. */
export function printReady({ bindings, metrics, healthAddress }: ReadyListeners): Promise<void> {
  return printLine({
    event: "ready",
    protocol,
    pid: process.pid,
    version,
    bindings: bindings.map(bindingOf),
    health: "grpc.health.v1",
    metrics,
    healthAddress,
  });
}

/** Tells the host on stdout why the sidecar didn't start; the exit code says it again. */
export function printFailed({ reason, message, hint, retryable }: StartError): Promise<void> {
  const sentences = hint === undefined ? message : `${message.replace(/\.$/, "")}. ${hint}`;
  return printLine({ event: "failed", reason, message: redactSecrets(sentences), retryable });
}

/** One that doesn't serve says so, and why; health tells when it does. */
function bindingOf({ plugin, pluginId, address }: ReadyBinding): Record<string, unknown> {
  const served = { plugin, pluginId, address };
  return pluginId === null
    ? { ...served, state: "NOT_SERVING", reason: "PLUGIN_NOT_REGISTERED" }
    : served;
}

function printLine(event: Record<string, unknown>): Promise<void> {
  return print(`${JSON.stringify(event)}\n`);
}
