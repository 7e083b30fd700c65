import type { Server, ServerInterceptor } from "@grpc/grpc-js";
import { boundCalls } from "../internals/bounded-calls.ts";
import { checkInternals } from "../internals/check.ts";
import { setHttp2Options } from "../internals/grpc-server.ts";
import { runUnaryCalls } from "../internals/unary-calls.ts";
import { Connections, type Refusal } from "./connections.ts";
import { defaultMaxCallMs } from "./default-bounds.ts";
import { prepareListeners } from "./http2-servers.ts";
import type { OutgoingStatus } from "./outgoing-status.ts";
import { type Overloaded, plainOverloaded } from "./overloaded.ts";
import { addUnknownMethod, MethodsServer, refuseUnknownMethods } from "./unknown-methods.ts";

/** What bounds one server's calls. */
export interface ServerLimits {
  /** The largest request; a larger one is RESOURCE_EXHAUSTED before it's parsed. */
  readonly maxReceiveBytes: number;
  /** The largest reply; a larger one is RESOURCE_EXHAUSTED. */
  readonly maxSendBytes: number;
  /** Open calls, streams included, on one connection; clients hold back what's above it. */
  readonly maxConcurrentStreams: number;
  /** How long a call may be open; streams of replies may be open for longer. */
  readonly maxCallMs?: number;
  /** Open streams of replies on one connection. */
  readonly maxLongCalls?: number;
  /** Bytes of unanswered requests, and of unread replies, that one connection may make us hold. */
  readonly maxHeldBytes?: number;
  /** Called for every call, outermost first. */
  readonly interceptors?: readonly ServerInterceptor[];
  /** Sees every status before it is sent; see `boundCalls`. */
  readonly completeStatus?: (status: OutgoingStatus) => OutgoingStatus;
  /** What a call is told when its connection holds too much. */
  readonly overloaded?: Overloaded;
  /** Told whenever a bound kept a client from something. */
  readonly onRefused?: (refusal: Refusal) => void;
}

/** 20 pages of the largest size, or 16 values. */
export const defaultMaxHeldBytes = 64 * 1024 * 1024;
/** Streams of replies: health and reflection need one each. */
const defaultMaxLongCalls = 100;
/** All connections of a server may hold together as much as some that hold all they may. */
const greedyConnections = 4;

/**
 * A connection whose client has gone is found by asking it: Node 20 doesn't see the end of one that stops
 * within a block of headers, and sends nothing on it either. 20 s to answer is what gRPC's servers give.
 */
const keepAlive = { "grpc.keepalive_time_ms": 15_000, "grpc.keepalive_timeout_ms": 20_000 };

/** Ample for tracing and tokens; grpc-core allows 8 KiB, Node 64. */
const maxHeaderListSize = 16 * 1024;

/**
 * A client that cancels its calls (short deadlines, hedging) sends a reset for each, and after 1,000
 * of them, refilled at 33 a second, Node ends the connection with every call on it: at the 1,102nd
 * to 1,135th quick cancel here, on 20, 22 and 24. Node 22.11 made it configurable, and only with both
 * set (either alone does nothing; 20 ignores both). 20,000 a second is more calls than one
 * connection makes.
 */
const resetLimits = { streamResetBurst: 20_000, streamResetRate: 20_000 };

/**
 * Makes a grpc-js server with our limits and without what we don't use. Throws a StartError where a bound
 * can't be had of this version of it.
 *
 * The receive window stays at HTTP/2's 64 KiB. A 1 MiB `initialWindowSize` changes nothing by itself,
 * since the connection's window, which no setting reaches, stays the narrower one: a 4 MiB upload
 * took 480 ms at 4 ms round trip with it and without (51 ms with both at 1 MiB), and on loopback,
 * where workers are, the windows make no difference that stands out of the noise.
 */
export function createGrpcServer(limits: ServerLimits): Server {
  checkInternals();
  const complete = limits.completeStatus ?? ((status) => status);
  const connections = new Connections(connectionBounds(limits, complete));
  const server = new MethodsServer({
    // Channelz costs trackers and clock reads on every call, and we serve none of it.
    "grpc.enable_channelz": 0,
    ...keepAlive,
    "grpc.max_concurrent_streams": limits.maxConcurrentStreams,
    "grpc.max_receive_message_length": limits.maxReceiveBytes,
    "grpc.max_send_message_length": limits.maxSendBytes,
    interceptors: [
      boundCalls(connections, limits.overloaded ?? plainOverloaded),
      refuseUnknownMethods(),
      ...(limits.interceptors ?? []),
    ],
  });
  addUnknownMethod(server);
  runUnaryCalls(server);
  prepareListeners(server, { connections, hasMethod: (path) => server.hasMethod(path) });
  setHttp2Options(server, { ...resetLimits, maxHeaderListSize });
  return server;
}

function connectionBounds(
  limits: ServerLimits,
  complete: (status: OutgoingStatus) => OutgoingStatus,
) {
  // Two of the largest requests, one that is being served and one that comes.
  const perConnection = Math.max(
    limits.maxHeldBytes ?? defaultMaxHeldBytes,
    2 * limits.maxReceiveBytes,
  );
  const held = { perConnection, perServer: greedyConnections * perConnection };
  return {
    maxCallMs: limits.maxCallMs ?? defaultMaxCallMs,
    maxLongCalls: limits.maxLongCalls ?? defaultMaxLongCalls,
    requests: held,
    replies: held,
    complete,
    onRefused: limits.onRefused ?? (() => {}),
  };
}
