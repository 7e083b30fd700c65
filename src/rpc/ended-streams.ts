import { EventEmitter } from "node:events";
import type { ServerHttp2Stream } from "node:http2";

/**
 * Lets a stream that has closed keep nothing alive.
 *
 * What a call was made of hangs on the listeners of its stream: grpc-js's call, request and reply. Since
 * Node 22 each stream is itself held by a function that it has from the start, and that V8 allocates with
 * what lives long, because it is written into a property where it is made. So no stream, and nothing on
 * it, is collected while young: on Node 24 every 45 MB left 12 to be copied, 15 ms at a time, and collected
 * the slow way several times a second (docs/performance.md).
 */
export function forgetWhenClosed(stream: ServerHttp2Stream): void {
  stream.on("close", forget);
}

/** Nothing is emitted after `close`; those who listen to that are called, as many as there are. */
function forget(this: ServerHttp2Stream): void {
  // Readable's own would look in another turn who still reads.
  EventEmitter.prototype.removeAllListeners.call(this);
  // An error that nobody hears would end the process.
  this.on("error", ignore);
}

function ignore(): void {}
