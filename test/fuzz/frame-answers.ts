/** `grpc-status` in HPACK's Huffman code, then the length of the number and the number in plain text. */
const firstStatus = /9acac8b21234da8f(?:013(\d)|023(\d)3(\d))/g;

/**
 * Statuses in what a server sent to a client whose frames were damaged. Of each connection it is the first
 * one that can be read: HPACK refers to it later on.
 */
export function statusesIn(bytes: Buffer): readonly number[] {
  const found = bytes.toString("hex").matchAll(firstStatus);
  return [...found].map(([, one, tens, ones]) => Number(one ?? `${tens}${ones}`));
}
