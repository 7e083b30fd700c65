import { EventEmitter } from "node:events";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);

const methods = [
  "handleDataFrame",
  "decompressMessage",
  "sendMessage",
  "sendStatus",
  "notifyOnCancel",
];
const handler = { path: "/a/b", type: "unary" };

/** Whether a call of grpc-js has all that bounded-calls.ts reaches for. */
export function hasGrpcCallInternals(): boolean {
  try {
    const call = anyCall();
    const decoder: unknown = Reflect.get(call, "decoder");
    return (
      methods.every((name) => typeof Reflect.get(call, name) === "function") &&
      ["receivedHalfClose", "cancelled", "wantTrailers"].every(
        (name) => Reflect.get(call, name) === false,
      ) &&
      Reflect.get(call, "handler") === handler &&
      Reflect.get(call, "stream") instanceof EventEmitter &&
      typeof decoder === "object" &&
      decoder !== null &&
      Reflect.get(decoder, "readMessageRemaining") === 0 &&
      Array.isArray(Reflect.get(decoder, "readPartialMessage"))
    );
  } catch {
    // Its file, its class or what that asks for is another.
    return false;
  }
}

/** A call of a stream that isn't one. */
function anyCall(): object {
  const { BaseServerInterceptingCall } = require("@grpc/grpc-js/build/src/server-interceptors.js");
  const stream = Object.assign(new EventEmitter(), { pause() {} });
  return new BaseServerInterceptingCall(stream, {}, null, handler, {});
}
