import { type ListenAddress, parseListenAddress } from "../rpc/listen-address.ts";
import { usageError } from "../start-error.ts";

/** Reads an address given by a flag; throws a usage error that names the flag. */
export function parseAddress(flag: string, text: string): ListenAddress {
  try {
    return parseListenAddress(text);
  } catch (error) {
    const sentence = error instanceof Error ? error.message : String(error);
    throw usageError(`${flag}: ${sentence}`);
  }
}
