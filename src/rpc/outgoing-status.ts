import type { ServerInterceptingCall } from "@grpc/grpc-js";

/** A status on its way to the client, as grpc-js hands it on. */
export type OutgoingStatus = Parameters<ServerInterceptingCall["sendStatus"]>[0];
