import { redactSecrets } from "../config/redact.ts";
import type { StartError } from "../start-error.ts";
import { version } from "../version.ts";
import { print } from "./output.ts";

/** The version of the contract between host and sidecar: of these lines, signals and exit codes. */
const protocol = 1;

/** A listener that is open: where, and whose. */
export interface ReadyBinding {
  readonly plugin: string;
  readonly pluginId: string;
  readonly address: string;
}

/** Tells the host on stdout that every listener answers, and where metrics are, if they are. */
export function printReady(bindings: readonly ReadyBinding[], metrics?: string): Promise<void> {
  return printLine({
    event: "ready",
    protocol,
    pid: process.pid,
    version,
    bindings: bindings.map(({ plugin, pluginId, address }) => ({ plugin, pluginId, address })),
    health: "grpc.health.v1",
    ...(metrics !== undefined && { metrics }),
  });
}

/** Tells the host on stdout why the sidecar didn't start; the exit code says it again. */
export function printFailed({ reason, message, hint, retryable }: StartError): Promise<void> {
  const sentences = hint === undefined ? message : `${message.replace(/\.$/, "")}. ${hint}`;
  return printLine({ event: "failed", reason, message: redactSecrets(sentences), retryable });
}

function printLine(event: Record<string, unknown>): Promise<void> {
  return print(`${JSON.stringify(event)}\n`);
}
