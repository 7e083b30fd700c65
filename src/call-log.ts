import { status } from "@grpc/grpc-js";
import type { Log } from "./log.ts";
import type { FinishedCall } from "./rpc/handler.ts";
import { QuotaExceeded } from "./state/errors.ts";

/** Codes that tell of a fault on our side or behind us, rather than of the caller's; a quota is the caller's. */
const ownFaults: ReadonlySet<status> = new Set([
  status.INTERNAL,
  status.UNKNOWN,
  status.UNAVAILABLE,
  status.RESOURCE_EXHAUSTED,
]);

/** Logs one line for each call that failed or was slow, none for the rest. */
export function callLog(log: Log, slowCallMs: number): (call: FinishedCall) => void {
  return (call) => {
    const { method, durationMs, code, error, traceId } = call;
    if (code === status.OK && durationMs < slowCallMs) {
      return;
    }
    const fields = {
      rpc: method,
      code: status[code],
      ms: Math.round(durationMs * 100) / 100,
      ...(traceId !== undefined && { trace_id: traceId }),
    };
    if (ownFaults.has(code) && !(error instanceof QuotaExceeded)) {
      log.error({ ...fields, err: causeOf(error) }, "call failed");
    } else if (code !== status.OK) {
      log.info(
        { ...fields, problem: error instanceof Error ? error.message : undefined },
        "call refused",
      );
    } else {
      log.warn(fields, "slow call");
    }
  };
}

/** What PostgreSQL or Node said, where the error tells. */
function causeOf(error: unknown): unknown {
  return error instanceof Error && error.cause !== undefined ? error.cause : error;
}
