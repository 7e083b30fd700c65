import { isIP } from "node:net";
import { checkServerIdentity } from "node:tls";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type ChannelCredentials, Client, credentials, status } from "@grpc/grpc-js";
import { type HealthConfig, type HealthTls, readHealthConfig } from "../config/health.ts";
import {
  Health,
  HealthCheckRequestSchema,
  HealthCheckResponseSchema,
  HealthCheckResponse_ServingStatus as ServingStatus,
  HealthCheckResponse_ServingStatusSchema as ServingStatusSchema,
} from "../gen/health/v1/health_pb.ts";
import { formatAddress } from "../rpc/listen-address.ts";
import { ExitCode, StartError } from "../start-error.ts";
import type { Invocation } from "./commands.ts";
import { print, printError } from "./output.ts";

/** How grpc-js says that somebody accepted the connection and then didn't speak HTTP/2 in the clear. */
const brokeOff = /Failed to connect|ECONNRESET|socket hang up|Protocol error/;
const tlsHint =
  "If a sidecar serves TLS there, give --tls-ca-file, or ask the address of its --health-listen, which is in the clear.";

/** `plugin-state health`: prints the sidecar's answer; 0 only when it is SERVING. */
export async function health({ flags, environment }: Invocation): Promise<number> {
  const config = readHealthConfig(flags, environment);
  const channel = config.tls === undefined ? credentials.createInsecure() : overTls(config.tls);
  try {
    const answer = await check(config, channel);
    await print(`${ServingStatusSchema.value[answer]?.name ?? answer}\n`);
    return answer === ServingStatus.SERVING ? ExitCode.ok : ExitCode.unhealthy;
  } catch (error) {
    await printError(
      `plugin-state: no answer from ${formatAddress(config.address)}: ${describe(error)}\n`,
    );
    return ExitCode.unhealthy;
  }
}

/** Asks once; rejects when there is no answer, or none within the time. */
async function check(config: HealthConfig, channel: ChannelCredentials): Promise<ServingStatus> {
  const client = new Client(formatAddress(config.address), channel, {
    // What is sent as the server's name. TLS has no place there for an IP address.
    ...(config.tls === undefined
      ? {}
      : {
          "grpc.ssl_target_name_override": isIP(config.tls.serverName)
            ? "localhost"
            : config.tls.serverName,
        }),
    // A sidecar is near: `http_proxy` in the environment is meant for other traffic.
    "grpc.enable_http_proxy": 0,
  });
  try {
    return await new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        `/${Health.typeName}/${Health.method.check.name}`,
        (request) => Buffer.from(toBinary(HealthCheckRequestSchema, request)),
        (bytes) => fromBinary(HealthCheckResponseSchema, bytes),
        create(HealthCheckRequestSchema, { service: config.service }),
        { deadline: Date.now() + config.timeoutMs },
        (error, response) => (response ? resolve(response.status) : reject(error)),
      );
    });
  } finally {
    client.close();
  }
}

function overTls({ ca, own, serverName }: HealthTls): ChannelCredentials {
  try {
    return credentials.createSsl(
      ca === undefined ? null : Buffer.from(ca),
      own === undefined ? null : Buffer.from(own.key),
      own === undefined ? null : Buffer.from(own.cert),
      { checkServerIdentity: (_sent, certificate) => checkServerIdentity(serverName, certificate) },
    );
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new StartError("TLS_UNUSABLE", `the --tls files can't be used: ${reason}`, {
      exitCode: ExitCode.configuration,
      cause: error,
    });
  }
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (!("details" in error && "code" in error)) return error.message;
  // grpc-js ends its sentence with a note on name resolution, which is empty.
  const details = String(error.details).replace(/ Resolution note: $/, "");
  const told = `${status[Number(error.code)] ?? error.code}: ${details}`;
  return brokeOff.test(details) ? `${told}\n${tlsHint}` : told;
}
