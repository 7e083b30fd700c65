import type { ListenAddress } from "../rpc/listen-address.ts";
import { usageError } from "../start-error.ts";
import { parseAddress } from "./address.ts";
import type { OptionValues } from "./option.ts";
import { healthOptions } from "./options.ts";
import { type Environment, type GivenFlags, nameAsGiven, resolveOptions } from "./resolve.ts";
import { readTextFile } from "./text-file.ts";

/** All that `health` was told. */
export interface HealthConfig {
  readonly address: Exclude<ListenAddress, { readonly kind: "fd" }>;
  /** The full name of a gRPC service; empty for the sidecar as a whole. */
  readonly service: string;
  readonly timeoutMs: number;
  /** Undefined: in the clear. */
  readonly tls: HealthTls | undefined;
}

/** How to ask over TLS; PEM texts. */
export interface HealthTls {
  /** The CAs to trust; undefined: those that Node.js does. */
  readonly ca: string | undefined;
  /** What to show to a sidecar that demands a certificate. */
  readonly own: { readonly cert: string; readonly key: string } | undefined;
  /** Whom the certificate must be for: a name, or an IP address. */
  readonly serverName: string;
}

/** Reads the configuration of `health`. Throws a StartError that says what is wrong. */
export function readHealthConfig(flags: GivenFlags, environment: Environment): HealthConfig {
  const { values, sources } = resolveOptions(healthOptions, flags, environment);
  const { address, service, timeoutMs } = values;
  const read = (name: "tlsCaFile" | "tlsCertFile" | "tlsKeyFile") => {
    const path = values[name];
    return path === undefined
      ? undefined
      : readTextFile(path, nameAsGiven(healthOptions[name], sources[name]));
  };
  const target = connectable(address);
  return { address: target, service: service ?? "", timeoutMs, tls: tlsOf(values, target, read) };
}

function connectable(text: string): HealthConfig["address"] {
  const address = parseAddress("--address", text);
  if (address.kind === "fd") {
    throw usageError(`--address ${text}: only the process that has this descriptor can use it`);
  }
  return address;
}

function tlsOf(
  { tlsCaFile, tlsCertFile, tlsKeyFile, tlsServerName }: OptionValues<typeof healthOptions>,
  address: HealthConfig["address"],
  read: (name: "tlsCaFile" | "tlsCertFile" | "tlsKeyFile") => string | undefined,
): HealthTls | undefined {
  if ((tlsCertFile === undefined) !== (tlsKeyFile === undefined)) {
    throw usageError("a certificate to show needs both --tls-cert-file and --tls-key-file");
  }
  const given = [tlsCaFile, tlsCertFile, tlsServerName];
  if (given.every((option) => option === undefined)) return undefined;
  const cert = read("tlsCertFile");
  const key = read("tlsKeyFile");
  return {
    ca: read("tlsCaFile"),
    own: cert === undefined || key === undefined ? undefined : { cert, key },
    serverName: tlsServerName ?? (address.kind === "tcp" ? address.host : "localhost"),
  };
}
