import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type GetServerInfoResponseSchema,
  PluginStateService,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import {
  defaultPageSize,
  maxBatchGetNames,
  maxKeyBytes,
  maxMergePatchDepth,
  maxNamespaceBytes,
  maxPageBytes,
  maxPageSize,
  maxScopeIdBytes,
  maxTransactChecks,
  maxTransactOperations,
  maxValueDepth,
} from "../state/limits.ts";
import type { Binding } from "./binding.ts";
import { wireKinds } from "./respond.ts";

/** Tells which sidecar this is, which plugin it serves, and its limits. */
export async function getServerInfo(
  binding: Binding,
): Promise<MessageInitShape<typeof GetServerInfoResponseSchema>> {
  const { bounds, permissions } = binding;
  return {
    version: binding.version,
    apiVersions: [PluginStateService.file.proto.package],
    plugin: binding.plugin(),
    capabilities: [...permissions.capabilities],
    allowedScopes: (permissions.scopes ?? []).map(({ kind, id }) => ({
      kind: wireKinds[kind],
      ...(id !== undefined && { id }),
    })),
    limits: {
      maxKeyBytes,
      maxScopeIdBytes,
      maxNamespaceBytes,
      maxValueBytes: bounds.maxValueBytes,
      maxValueDepth,
      defaultPageSize,
      maxPageSize,
      maxPageBytes,
      maxTransactChecks,
      maxTransactOperations,
      maxBatchGetNames,
      maxMergePatchDepth,
      requestIdSeconds: BigInt(Math.floor(bounds.rememberRequestsMs / 1000)),
      quotaEntries: BigInt(bounds.quotaEntries ?? 0),
      quotaBytes: BigInt(bounds.quotaBytes ?? 0),
    },
  };
}
