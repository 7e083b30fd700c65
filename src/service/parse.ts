import {
  type Scope as ScopeMessage,
  ScopeKind as WireKind,
} from "../gen/pluginstate/v1/entry_pb.ts";
import type {
  DeleteRequest,
  GetRequest,
  SetRequest,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { EntryName, Scope, ScopeKind } from "../state/entry.ts";
import { InvalidField, InvalidValue, TooLarge } from "../state/errors.ts";
import { findJsonFault } from "../state/json-text.ts";
import { maxKeyBytes, maxNamespaceBytes, maxScopeIdBytes, maxValueDepth } from "../state/limits.ts";
import type { DeleteEntry, SetEntry } from "../state/requests.ts";

/** The namespace of a request that names none. */
export const defaultNamespace = "default";

const scopeKinds: Readonly<Record<WireKind, ScopeKind | undefined>> = {
  [WireKind.UNSPECIFIED]: undefined,
  [WireKind.INSTANCE]: "instance",
  [WireKind.COMPANY]: "company",
  [WireKind.PROJECT]: "project",
  [WireKind.PROJECT_WORKSPACE]: "project_workspace",
  [WireKind.AGENT]: "agent",
  [WireKind.ISSUE]: "issue",
  [WireKind.GOAL]: "goal",
  [WireKind.RUN]: "run",
};

/** What names an entry in a request. */
interface NamedRequest {
  readonly scope?: ScopeMessage | undefined;
  readonly namespace: string;
  readonly key: string;
}

/** @throws {InvalidField} {@link TooLarge} */
export function parseGet(request: GetRequest): EntryName {
  return parseName(request);
}

/** @throws {InvalidField} {@link InvalidValue} {@link TooLarge} */
export function parseSet(request: SetRequest, maxValueBytes: number): SetEntry {
  const name = parseName(request);
  return { kind: "set", name, valueJson: parseValue(request.valueJson, maxValueBytes) };
}

/** @throws {InvalidField} {@link TooLarge} */
export function parseDelete(request: DeleteRequest): DeleteEntry {
  return { kind: "delete", name: parseName(request) };
}

function parseName(request: NamedRequest): EntryName {
  return {
    scope: parseScope(request.scope),
    namespace: parseNamespace(request.namespace),
    key: parseText("key", request.key, maxKeyBytes),
  };
}

/** @throws {InvalidField} {@link TooLarge} */
export function parseScope(scope: ScopeMessage | undefined): Scope {
  if (scope === undefined) {
    throw new InvalidField("scope", "is required");
  }
  const kind = scopeKinds[scope.kind];
  if (kind === undefined) {
    throw new InvalidField("scope.kind", unknownKind(scope.kind));
  }
  if (kind !== "instance") {
    return { kind, id: parseText("scope.id", scope.id, maxScopeIdBytes) };
  }
  if (scope.id !== "") {
    throw new InvalidField("scope.id", "must be empty for SCOPE_KIND_INSTANCE");
  }
  return { kind, id: undefined };
}

function unknownKind(kind: number): string {
  return kind === WireKind.UNSPECIFIED ? "is required" : `${kind} is no ScopeKind of this sidecar`;
}

/** @throws {InvalidField} {@link TooLarge} */
export function parseNamespace(namespace: string): string {
  return namespace === "" ? defaultNamespace : parseText("namespace", namespace, maxNamespaceBytes);
}

/**
 * A text that PostgreSQL can keep: not empty, no U+0000, within its bound.
 *
 * @throws {InvalidField} {@link TooLarge}
 */
function parseText(field: string, text: string, maxBytes: number): string {
  if (text === "") {
    throw new InvalidField(field, "is required");
  }
  return parseOptionalText(field, text, maxBytes);
}

/**
 * A text that PostgreSQL can keep, or the empty one.
 *
 * @throws {InvalidField} {@link TooLarge}
 */
export function parseOptionalText(field: string, text: string, maxBytes: number): string {
  const bytes = Buffer.byteLength(text);
  if (bytes > maxBytes) {
    throw new TooLarge(field, bytes, maxBytes);
  }
  if (text.includes("\0")) {
    throw new InvalidField(field, "must not contain U+0000");
  }
  return text;
}

function parseValue(text: string, maxBytes: number): string {
  if (text === "") {
    throw new InvalidField(
      "value_json",
      'is required: the JSON null is `null`, the empty string `""`',
    );
  }
  const bytes = Buffer.byteLength(text);
  if (bytes > maxBytes) {
    throw new TooLarge("value_json", bytes, maxBytes);
  }
  const fault = findJsonFault(text, maxValueDepth, maxBytes);
  if (fault !== undefined) {
    throw new InvalidValue("value_json", fault.message, fault.offset);
  }
  return text;
}
