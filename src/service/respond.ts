import type { MessageInitShape } from "@bufbuild/protobuf";
import type { TimestampSchema } from "@bufbuild/protobuf/wkt";
import {
  type EntrySchema,
  type ScopeSchema,
  ScopeKind as WireKind,
} from "../gen/pluginstate/v1/entry_pb.ts";
import type { Entry, Scope, ScopeKind } from "../state/entry.ts";

/** The kinds as the proto has them. */
export const wireKinds: Readonly<Record<ScopeKind, WireKind>> = {
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
  return {
    scope: scopeMessage(entry.scope),
    namespace: entry.namespace,
    key: entry.key,
    valueJson: entry.valueJson ?? "",
    revision: entry.revision,
    createTime: timestamp(entry.createdUs),
    updateTime: timestamp(entry.updatedUs),
    expireTime: timestamp(entry.expiresUs),
  };
}

/** A scope as the proto has it. */
export function scopeMessage({ kind, id }: Scope): MessageInitShape<typeof ScopeSchema> {
  return { kind: wireKinds[kind], id: id ?? "" };
}

function timestamp(
  microseconds: bigint | undefined,
): MessageInitShape<typeof TimestampSchema> | undefined {
  if (
    microseconds === undefined ||
    microseconds < minTimestampUs ||
    microseconds > maxTimestampUs
  ) {
    return undefined;
  }
  // Exact in a double until 2255, and much quicker.
  const us = Number(microseconds);
  if (Number.isSafeInteger(us)) {
    const seconds = Math.floor(us / 1_000_000);
    return { seconds: BigInt(seconds), nanos: (us - seconds * 1_000_000) * 1000 };
  }
  // BigInt division rounds towards zero; nanos count forward from a whole second.
  const remainder = ((microseconds % 1_000_000n) + 1_000_000n) % 1_000_000n;
  const seconds = (microseconds - remainder) / 1_000_000n;
  return { seconds, nanos: Number(remainder) * 1000 };
}
