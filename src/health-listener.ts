import { bindError } from "./bind-error.ts";
import type { Closers } from "./closers.ts";
import type { Log } from "./log.ts";
import type { HealthService } from "./rpc/health.ts";
import { formatAddress, type ListenAddress } from "./rpc/listen-address.ts";
import { drain, ListenError, listen } from "./rpc/listener.ts";
import { createGrpcServer } from "./rpc/server-options.ts";

/** A request names a service; nothing else fits into it. */
const maxRequestBytes = 4 * 1024;
/**
 * Anybody may connect here. Together they get half of this server's 1,000 watches and a few MB of memory,
 * and nothing that the plugins' workers need: those have watches of their own.
 */
const maxConnections = 32;
const maxConcurrentStreams = 16;

/**
 * Serves grpc.health.v1 and nothing else at an address that other machines may reach, as a
 * kubelet's probes must: it tells whether the sidecar serves, and no plugin's state can be had
 * there. Stays open until all else is released, so that a draining sidecar is seen to live.
 * Returns the address with the port that was bound.
 *
 * @throws {StartError} when the address can't be bound.
 */
export async function openHealthListener(
  address: ListenAddress,
  health: HealthService,
  log: Log,
  closers: Closers,
): Promise<string> {
  const server = createGrpcServer({
    maxReceiveBytes: maxRequestBytes,
    maxSendBytes: -1,
    maxConcurrentStreams,
  });
  health.addTo(server);
  try {
    const listener = await listen(server, address, {
      maxConnections,
      replacesOldest: true,
      onAcceptError: (error) => log.error({ err: error }, "can't accept health connections"),
    });
    closers.add(() => drain(server, 0));
    return listener.address;
  } catch (error) {
    const otherwise = `Something else may be at ${formatAddress(address)}: give another address, or port 0.`;
    const hints = { prefix: "--health-listen", notLoopback: otherwise, otherwise };
    throw error instanceof ListenError ? bindError(error, hints) : error;
  }
}
