import { create, type DescMethod, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Health } from "../../src/gen/health/v1/health_pb.ts";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { PluginStateService as service } from "../../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { grpcMessage } from "../rpc/raw-client.ts";
import type { TestDatabase } from "../support/database.ts";
import { testSidecar } from "../support/sidecar.ts";
import { bystander, transports } from "./bindings-file.ts";
import type { Calls } from "./clients.ts";

const mib = 1024 * 1024;
const scope = { kind: ScopeKind.INSTANCE };
const manyScope = { kind: ScopeKind.ISSUE, id: "many" };

type Methods = typeof service.method;

/** Calls whose replies are this large. */
export const replies = {
  small: (count: number) => call("get", { scope, key: "small" }, count),
  "4 MiB": (count: number) => call("get", { scope, key: "large" }, count),
  /** 100 entries of 30 kB. */
  page: (count: number) => call("list", { scope: manyScope, pageSize: 100 }, count),
  /** Of the health service. */
  health: (count: number) => callOf(Health.method.list, {}, count),
};

/** What those calls find, for each plugin. */
export async function fill(database: TestDatabase): Promise<void> {
  await using sidecar = await testSidecar(database, [...transports, bystander]);
  for (const client of sidecar.clients) {
    await client.call("set", { scope, key: "small", valueJson: "1" });
    const valueJson = `"${"x".repeat(4 * mib - 2)}"`;
    await client.call("set", { scope, key: "large", valueJson });
    for (let n = 0; n < 100; n++) {
      await client.call("set", {
        scope: manyScope,
        key: `k${n}`,
        valueJson: `"${"y".repeat(30_000)}"`,
      });
    }
  }
}

function call<K extends keyof Methods>(
  name: K,
  request: MessageInitShape<Methods[K]["input"]>,
  count: number,
): Omit<Calls, "headers"> {
  return callOf(service.method[name], request as Record<string, unknown>, count);
}

function callOf(
  method: DescMethod,
  request: Record<string, unknown>,
  count: number,
): Omit<Calls, "headers"> {
  const bytes = toBinary(method.input, create(method.input, request));
  const message = grpcMessage(bytes).toString("base64");
  return { path: `/${method.parent.typeName}/${method.name}`, message, count };
}
