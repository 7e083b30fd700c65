// @ts-check
// The baseline: an empty echo on a stock grpc-js server, default options, in its own process.
// Request and reply have no fields and no serializer of a library. What it costs per call is what
// gRPC on Node costs; what a sidecar costs above it is ours.
// Prints {"event":"ready","address":…,"pid":…} and runs until its stdin ends or it gets a signal.

import { Server, ServerCredentials } from "@grpc/grpc-js";

const EMPTY = Buffer.alloc(0);

const echo = {
  Echo: {
    path: "/bench.Echo/Echo",
    requestStream: false,
    responseStream: false,
    requestSerialize: () => EMPTY,
    requestDeserialize: () => ({}),
    responseSerialize: () => EMPTY,
    responseDeserialize: () => ({}),
  },
};

const server = new Server();
server.addService(echo, {
  /** @type {import("@grpc/grpc-js").handleUnaryCall<object, object>} */
  Echo: (_call, callback) => callback(null, {}),
});
server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => {
  if (error !== null) throw error;
  const ready = { event: "ready", address: `127.0.0.1:${port}`, pid: process.pid };
  process.stdout.write(`${JSON.stringify(ready)}\n`);
});
process.stdin.resume().on("end", () => process.exit(0));
