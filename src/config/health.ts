import type { ListenAddress } from "../rpc/listen-address.ts";
import { usageError } from "../start-error.ts";
import { parseAddress } from "./address.ts";
import { healthOptions } from "./options.ts";
import { type Environment, type GivenFlags, resolveOptions } from "./resolve.ts";

/** All that `health` was told. */
export interface HealthConfig {
  readonly address: Exclude<ListenAddress, { readonly kind: "fd" }>;
  /** The full name of a gRPC service; empty for the sidecar as a whole. */
  readonly service: string;
  readonly timeoutMs: number;
}

/** Reads the configuration of `health`. Throws a usage error that says what is wrong. */
export function readHealthConfig(flags: GivenFlags, environment: Environment): HealthConfig {
  const { address, service, timeoutMs } = resolveOptions(healthOptions, flags, environment).values;
  return { address: connectable(address), service: service ?? "", timeoutMs };
}

function connectable(text: string): HealthConfig["address"] {
  const address = parseAddress("--address", text);
  if (address.kind === "fd") {
    throw usageError(`--address ${text}: only the process that has this descriptor can use it`);
  }
  return address;
}
