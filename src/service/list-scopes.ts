import type { MessageInitShape } from "@bufbuild/protobuf";
import { ScopeKind as WireKind } from "../gen/pluginstate/v1/entry_pb.ts";
import type {
  ListScopesRequest,
  ListScopesResponseSchema,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Call } from "../rpc/handler.ts";
import { type ScopeKind, scopeKinds } from "../state/entry.ts";
import type { ListScopes, ScopePlace } from "../state/requests.ts";
import type { Binding } from "./binding.ts";
import {
  foreignPageToken,
  type PagedRequest,
  readPageToken,
  writePageToken,
} from "./page-token.ts";
import { parseScopeKind } from "./parse.ts";
import { parsePageSize } from "./parse-list.ts";
import { scopeMessage } from "./respond.ts";

/** Reads a page of the places that hold entries. */
export async function listScopes(
  binding: Binding,
  request: ListScopesRequest,
  call: Call,
): Promise<MessageInitShape<typeof ListScopesResponseSchema>> {
  const page = parseListScopes(request, binding.plugin().id);
  const { scopes, more, revision } = await binding.store().listScopes(page.list, call.signal);
  const last = more ? scopes.at(-1) : undefined;
  const nextPageToken = last === undefined ? "" : writePageToken(namesOf(last), page.boundTo);
  const summaries = scopes.map(({ scope, ...summary }) => ({
    ...summary,
    scope: scopeMessage(scope),
  }));
  return { scopes: summaries, nextPageToken, revision };
}

/** A page to read, and what its token for the next one must be bound to. */
interface ScopesPage {
  readonly list: ListScopes;
  readonly boundTo: PagedRequest;
}

/** @throws {InvalidField} */
function parseListScopes(request: ListScopesRequest, pluginId: string): ScopesPage {
  const isOfAll = request.kind === WireKind.UNSPECIFIED;
  const kind = isOfAll ? undefined : parseScopeKind("kind", request.kind);
  const boundTo = { pluginId, rpc: "ListScopes", fields: [kind] };
  const after = request.pageToken === "" ? undefined : placeOf(request.pageToken, boundTo);
  return { list: { kind, after, pageSize: parsePageSize(request.pageSize) }, boundTo };
}

function namesOf({ scope, namespace }: ScopePlace): string[] {
  return [scope.kind, scope.id ?? "", namespace];
}

function placeOf(pageToken: string, boundTo: PagedRequest): ScopePlace {
  const [kindName, id, namespace, ...more] = readPageToken(pageToken, boundTo);
  const kind = scopeKinds.find((known: ScopeKind) => known === kindName);
  if (kind === undefined || id === undefined || namespace === undefined || more.length > 0) {
    throw foreignPageToken();
  }
  return { scope: { kind, id: id || undefined }, namespace };
}
