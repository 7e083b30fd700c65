import { isLoopback, type ListenAddress } from "../rpc/listen-address.ts";
import { usageError } from "../start-error.ts";
import { parseAddress } from "./address.ts";

/** Reads where metrics are to be served; undefined when nobody said. */
export function readMetricsListen(
  text: string | undefined,
  insecure: boolean,
): ListenAddress | undefined {
  if (text === undefined) return undefined;
  const address = parseAddress("--metrics-listen", text);
  if (address.kind === "fd") {
    throw usageError("--metrics-listen takes HOST:PORT or unix:/PATH, no descriptor");
  }
  if (!insecure && !isLoopback(address)) {
    throw usageError(
      `--metrics-listen ${text} can be reached from other machines, and metrics are served to anybody who asks`,
      "Serve them on 127.0.0.1 or unix:/PATH, or give --insecure if the network itself is trusted.",
    );
  }
  return address;
}
