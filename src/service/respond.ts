import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { type EntrySchema, ScopeKind as WireKind } from "../gen/pluginstate/v1/entry_pb.ts";
import type { Entry, ScopeKind } from "../state/entry.ts";

const wireKinds: Readonly<Record<ScopeKind, WireKind>> = {
  instance: WireKind.INSTANCE,
  company: WireKind.COMPANY,
  project: WireKind.PROJECT,
  project_workspace: WireKind.PROJECT_WORKSPACE,
  agent: WireKind.AGENT,
  issue: WireKind.ISSUE,
  goal: WireKind.GOAL,
  run: WireKind.RUN,
};

/** Protobuf's timestamps go from the year 1 to 9999; PostgreSQL's further both ways. */
const minTimestampUs = -62_135_596_800_000_000n;
const maxTimestampUs = 253_402_300_799_999_999n;

/** An entry as the proto has it. */
export function entryMessage(entry: Entry): MessageInitShape<typeof EntrySchema> {
  const createTime = timestamp(entry.createdUs);
  const updateTime = timestamp(entry.updatedUs);
  const expireTime = timestamp(entry.expiresUs);
  return {
    scope: { kind: wireKinds[entry.scope.kind], id: entry.scope.id ?? "" },
    namespace: entry.namespace,
    key: entry.key,
    valueJson: entry.valueJson ?? "",
    revision: entry.revision,
    ...(createTime && { createTime }),
    ...(updateTime && { updateTime }),
    ...(expireTime && { expireTime }),
  };
}

function timestamp(microseconds: bigint | undefined): Timestamp | undefined {
  if (
    microseconds === undefined ||
    microseconds < minTimestampUs ||
    microseconds > maxTimestampUs
  ) {
    return undefined;
  }
  // BigInt division rounds towards zero; nanos count forward from a whole second.
  const remainder = ((microseconds % 1_000_000n) + 1_000_000n) % 1_000_000n;
  const seconds = (microseconds - remainder) / 1_000_000n;
  return create(TimestampSchema, { seconds, nanos: Number(remainder) * 1000 });
}
