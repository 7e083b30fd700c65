import {
  type Scope as ScopeMessage,
  ScopeKind as WireKind,
} from "../gen/pluginstate/v1/entry_pb.ts";
import type { EntryName, Scope, ScopeKind } from "../state/entry.ts";
import { InvalidField, InvalidValue, TooLarge } from "../state/errors.ts";
import { findJsonFault } from "../state/json-text.ts";
import { maxKeyBytes, maxNamespaceBytes, maxScopeIdBytes, maxValueDepth } from "../state/limits.ts";

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
export interface NamedRequest {
  readonly scope?: ScopeMessage | undefined;
  readonly namespace: string;
  readonly key: string;
}

/** @throws {InvalidField} {@link TooLarge} */
export function parseName(request: NamedRequest): EntryName {
  return {
    scope: parseScope(request.scope),
    namespace: parseNamespace(request.namespace),
    key: parseText("key", request.key, maxKeyBytes),
  };
}

/**
 * Parses a part of a request. What is wrong with it is said of the part.
 *
 * @param path Where the part stands in the request: `set`.
 */
export function within<T>(path: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw errorWithin(path, error);
  }
}

/** Parses each part of a list. What is wrong with one is said of it: `operations[3]`. */
export function withinEach<P, T>(list: string, parts: readonly P[], parse: (part: P) => T): T[] {
  return parts.map((part, index) => {
    try {
      return parse(part);
    } catch (error) {
      throw errorWithin(`${list}[${index}]`, error);
    }
  });
}

function errorWithin(path: string, error: unknown): unknown {
  const saysWhere =
    error instanceof InvalidField || error instanceof InvalidValue || error instanceof TooLarge;
  return saysWhere ? error.within(path) : error;
}

/** @throws {InvalidField} {@link TooLarge} */
export function parseScope(scope: ScopeMessage | undefined): Scope {
  if (scope === undefined) {
    throw new InvalidField("scope", "is required");
  }
  const kind = parseScopeKind("scope.kind", scope.kind);
  if (kind !== "instance") {
    return { kind, id: parseText("scope.id", scope.id, maxScopeIdBytes) };
  }
  if (scope.id !== "") {
    throw new InvalidField("scope.id", "must be empty for SCOPE_KIND_INSTANCE");
  }
  return { kind, id: undefined };
}

/** @throws {InvalidField} */
export function parseScopeKind(field: string, wireKind: WireKind): ScopeKind {
  const kind = scopeKinds[wireKind];
  if (kind === undefined) {
    throw new InvalidField(field, unknownKind(wireKind));
  }
  return kind;
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

/**
 * JSON text that can be kept.
 *
 * @throws {InvalidField} {@link InvalidValue} {@link TooLarge}
 */
export function parseJson(
  field: string,
  text: string,
  maxBytes: number,
  maxDepth = maxValueDepth,
): string {
  if (text === "") {
    throw new InvalidField(field, 'is required: the JSON null is `null`, the empty string `""`');
  }
  const bytes = Buffer.byteLength(text);
  if (bytes > maxBytes) {
    throw new TooLarge(field, bytes, maxBytes);
  }
  const fault = findJsonFault(text, maxDepth, maxBytes);
  if (fault !== undefined) {
    throw new InvalidValue(field, fault.message, fault.offset);
  }
  return text;
}
