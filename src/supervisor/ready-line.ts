import { SidecarError } from "./sidecar-error.ts";

/** The version of the contract between host and sidecar that this supervisor speaks. */
export const protocol = 1;

/** A listener of the sidecar: whose, and where. */
export interface SidecarBinding {
  /** The plugin's key, `acme.notes`. */
  readonly plugin: string;
  /** The plugin's UUID as of the ready line; null: it wasn't registered yet. */
  readonly pluginId: string | null;
  /** What clients dial: `127.0.0.1:41234`, `[::1]:41234`, `unix:///run/notes.sock`. */
  readonly address: string;
}

/** What a sidecar says of itself when it serves. */
export interface ReadyLine {
  readonly pid: number;
  readonly version: string;
  readonly bindings: readonly SidecarBinding[];
}

/**
 * Reads the one line that a sidecar prints on stdout.
 *
 * @throws {SidecarError} when the line says that the start failed, with the sidecar's own reason;
 *   when it is of another protocol; when it is no such line at all.
 */
export function parseReadyLine(text: string): ReadyLine {
  const line = parseObject(text);
  if (line["event"] === "failed") throw failureOf(line);
  if (line["event"] !== "ready") throw badLine(`its event is ${show(line["event"])}`);
  if (line["protocol"] !== protocol) {
    throw new SidecarError(
      "UNSUPPORTED_PROTOCOL",
      `the sidecar speaks protocol ${show(line["protocol"])} of the host's contract, this host ${protocol}`,
      { retryable: false },
    );
  }
  const { pid, version, bindings } = line;
  if (typeof pid !== "number" || typeof version !== "string" || !Array.isArray(bindings)) {
    throw badLine("pid, version or bindings is missing");
  }
  return { pid, version, bindings: bindings.map(parseBinding) };
}

function failureOf({ reason, message, retryable }: Record<string, unknown>): SidecarError {
  const text = typeof message === "string" ? message : "the sidecar didn't say why";
  return new SidecarError(typeof reason === "string" ? reason : "EXITED", text, {
    retryable: retryable === true,
  });
}

function parseBinding(value: unknown): SidecarBinding {
  if (isRecord(value)) {
    const { plugin, pluginId, address } = value;
    const isKnown = typeof pluginId === "string" || pluginId === null;
    const isThere = typeof address === "string" && address !== "";
    if (typeof plugin === "string" && isKnown && isThere) return { plugin, pluginId, address };
  }
  throw badLine("a binding has no plugin, pluginId or address");
}

function parseObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw badLine("it is no JSON");
  }
  if (!isRecord(value)) throw badLine("it is no JSON object");
  return value;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What the line holds isn't repeated: nobody knows what it is. */
function badLine(why: string): SidecarError {
  return new SidecarError(
    "BAD_READY_LINE",
    `the sidecar's first line on stdout isn't a ready line: ${why}`,
    { retryable: true },
  );
}

function show(value: unknown): string {
  return (JSON.stringify(value) ?? "missing").slice(0, 40);
}
