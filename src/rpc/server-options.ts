import { Server, type ServerInterceptor } from "@grpc/grpc-js";

/** What bounds one server's calls. */
export interface ServerLimits {
  /** The largest request; a larger one is RESOURCE_EXHAUSTED before it's parsed. */
  readonly maxReceiveBytes: number;
  /** The largest reply; a larger one is RESOURCE_EXHAUSTED. */
  readonly maxSendBytes: number;
  /** Open calls, streams included, on one connection; clients hold back what's above it. */
  readonly maxConcurrentStreams: number;
  /** Called for every call, outermost first. */
  readonly interceptors?: readonly ServerInterceptor[];
}

/**
 * A client that cancels its calls (short deadlines, hedging) sends a reset for each, and after 1,000
 * of them, refilled at 33 a second, Node ends the connection with every call on it: at the 1,102nd
 * to 1,135th quick cancel here, on 20, 22 and 24. Node 22.11 made it configurable, and only with both
 * set (either alone does nothing; 20 ignores both). 20,000 a second is more calls than one
 * connection makes.
 */
const resetLimits = { streamResetBurst: 20_000, streamResetRate: 20_000 };

/**
 * Makes a grpc-js server with our limits and without what we don't use.
 *
 * The receive window stays at HTTP/2's 64 KiB. A 1 MiB `initialWindowSize` changes nothing by itself,
 * since the connection's window, which no setting reaches, stays the narrower one: a 4 MiB upload
 * took 480 ms at 4 ms round trip with it and without (51 ms with both at 1 MiB), and on loopback,
 * where workers are, the windows make no difference that stands out of the noise.
 */
export function createGrpcServer(limits: ServerLimits): Server {
  const server = new Server({
    // Channelz costs trackers and clock reads on every call, and we serve none of it.
    "grpc.enable_channelz": 0,
    "grpc.max_concurrent_streams": limits.maxConcurrentStreams,
    "grpc.max_receive_message_length": limits.maxReceiveBytes,
    "grpc.max_send_message_length": limits.maxSendBytes,
    interceptors: [...(limits.interceptors ?? [])],
  });
  // No public option reaches node:http2. A test notices if this private field goes.
  const http2Options: unknown = Reflect.get(server, "commonServerOptions");
  if (typeof http2Options === "object" && http2Options !== null) {
    Object.assign(http2Options, resetLimits);
  }
  return server;
}
