import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type GetServerInfoResponseSchema,
  PluginStateService,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import {
  defaultPageSize,
  maxKeyBytes,
  maxNamespaceBytes,
  maxPageBytes,
  maxPageSize,
  maxScopeIdBytes,
  maxValueDepth,
} from "../state/limits.ts";
import type { Binding } from "./binding.ts";

/** Tells which sidecar this is, which plugin it serves, and its limits. */
export async function getServerInfo(
  binding: Binding,
): Promise<MessageInitShape<typeof GetServerInfoResponseSchema>> {
  return {
    version: binding.version,
    apiVersions: [PluginStateService.file.proto.package],
    plugin: binding.plugin(),
    capabilities: [],
    limits: {
      maxKeyBytes,
      maxScopeIdBytes,
      maxNamespaceBytes,
      maxValueBytes: binding.maxValueBytes,
      maxValueDepth,
      defaultPageSize,
      maxPageSize,
      maxPageBytes,
    },
  };
}
