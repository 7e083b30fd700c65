import type { Http2Server } from "node:http2";
import { Server } from "@grpc/grpc-js";

/** Options of node:http2 that grpc-js has none for. */
export interface Http2Options {
  readonly maxHeaderListSize: number;
  readonly streamResetBurst: number;
  readonly streamResetRate: number;
}

/** Has a server of grpc-js make its node:http2 servers with options of ours. */
export function setHttp2Options(server: Server, options: Http2Options): void {
  const { maxHeaderListSize, ...others } = options;
  const common = commonOptionsOf(server);
  if (common === undefined) {
    throw new Error("grpc-js keeps the options of node:http2 elsewhere");
  }
  const settings = { ...(common.settings as object | undefined), maxHeaderListSize };
  Object.assign(common, others, { settings });
}

/** The node:http2 server behind the connection injector that was made last. */
export function newestHttp2Server(server: Server): Http2Server {
  const all: unknown = Reflect.get(server, "http2Servers");
  const last: unknown = all instanceof Map ? [...all.keys()].at(-1) : undefined;
  if (last === undefined) {
    throw new Error("grpc-js keeps its http2 servers elsewhere");
  }
  return last as Http2Server;
}

/** Whether both are where they are looked for. */
export function hasGrpcServerInternals(): boolean {
  const server = new Server();
  return (
    commonOptionsOf(server) !== undefined && Reflect.get(server, "http2Servers") instanceof Map
  );
}

function commonOptionsOf(server: Server): { settings?: unknown } | undefined {
  const options: unknown = Reflect.get(server, "commonServerOptions");
  return typeof options === "object" && options !== null ? options : undefined;
}
