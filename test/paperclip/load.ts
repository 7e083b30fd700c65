import { onTestFinished } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import type { TestClient } from "../support/client.ts";
import { Tally } from "./tally.ts";

const scope = { kind: ScopeKind.ISSUE, id: "load" };
const keys = 20;
/** Far more than a call takes that waits for nobody. */
const deadlineMs = 10_000;

/** A load that runs until it is stopped, or its test has ended. */
export interface Load {
  /** Ends it; says how many calls were answered, and what went wrong. */
  stop(): Promise<{ readonly calls: number; readonly failures: readonly string[] }>;
}

/** Workers that write and read keys of their own, so that an external writer's changes are numbered all the time. */
export function startLoad(client: TestClient, workers = 4): Load {
  const failures = new Tally();
  let calls = 0;
  let goesOn = true;
  const work = async (worker: number) => {
    for (let n = 0; goesOn; n++) {
      const key = `${worker}/${n % keys}`;
      const call =
        n % 2 === 0
          ? client.call("set", { scope, key, valueJson: `${n}` }, { deadlineMs })
          : client.call("get", { scope, key }, { deadlineMs });
      await call.then(
        () => calls++,
        (error) => failures.add(error),
      );
    }
  };
  const running = Array.from({ length: workers }, (_, worker) => work(worker));
  onTestFinished(() => {
    goesOn = false;
  });
  return {
    stop: async () => {
      goesOn = false;
      await Promise.all(running);
      return { calls, failures: failures.list() };
    },
  };
}
