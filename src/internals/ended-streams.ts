import { EventEmitter } from "node:events";
import type { ServerHttp2Stream } from "node:http2";

/** From this on Node writes a function into each stream where it makes it. */
const firstMajor = 24;
const isNeeded = Number.parseInt(process.versions.node, 10) >= firstMajor;

/**
 * Lets a stream that has closed keep nothing alive.
 *
 * A function that is written into a property where it is made (`this.onwrite = () => …`) is allocated by V8
 * with what lives long: so it says in its parser. All that the function sees is then kept until the next
 * full collection. Since Node 24 each stream has such a function, and on the stream's listeners hangs what
 * a call was made of: grpc-js's call, request and reply. A quarter of what a scavenge looked at was copied,
 * 10 to 20 ms at a time (docs/performance.md). Without listeners there is little left to keep.
 */
export function forgetWhenClosed(stream: ServerHttp2Stream): void {
  // A microsecond of the 50 that a call takes.
  if (isNeeded) {
    stream.on("close", forget);
  }
}

/** Nothing is emitted after `close`; those who listen to that are called, as many as there are. */
function forget(this: ServerHttp2Stream): void {
  // Readable's own would look in another turn who still reads.
  EventEmitter.prototype.removeAllListeners.call(this);
  // An error that nobody hears would end the process.
  this.on("error", ignore);
}

function ignore(): void {}
