import type { Log } from "../log.ts";

/**
 * Signals that mean "drain, then exit". SIGHUP is a closed terminal: without a handler it would
 * kill us before the embedded PostgreSQL is stopped.
 */
const stopSignals = ["SIGTERM", "SIGINT", "SIGHUP"] as const;
type StopSignal = (typeof stopSignals)[number];

/**
 * A repeat within this time is the same request: Ctrl-C reaches every process of a terminal, and
 * npm passes its own copy on to us.
 */
const sameRequestMs = 250;

interface StopListeners {
  /** At SIGHUP, which otherwise means to stop. */
  reload?(): void;
  /** At the first signal, or when the parent's end of stdin is gone. */
  stop(): void;
  /** At the second signal. */
  abort(signal: StopSignal): void;
}

/** Listens for everything that asks the process to stop, until the returned function is called. */
export function listenForStop(
  exitWithParent: boolean,
  log: Log,
  listeners: StopListeners,
): () => void {
  const stopSignals = listenForSignals(log, listeners);
  const stopStdin = exitWithParent ? listenForParent(log, listeners) : () => {};
  return () => {
    stopSignals();
    stopStdin();
  };
}

function listenForSignals(log: Log, { reload, stop, abort }: StopListeners): () => void {
  let firstAt: number | undefined;
  const onSignal = (signal: StopSignal) => {
    if (signal === "SIGHUP" && reload !== undefined) {
      log.info({ signal }, "reading the configuration again");
      reload();
      return;
    }
    if (firstAt === undefined) {
      firstAt = performance.now();
      log.info({ signal }, "stopping; a second signal stops at once");
      stop();
    } else if (performance.now() - firstAt > sameRequestMs) {
      log.warn({ signal }, "stopping at once");
      abort(signal);
    }
  };
  for (const signal of stopSignals) process.on(signal, onSignal);
  return () => {
    for (const signal of stopSignals) process.off(signal, onSignal);
  };
}

/** The parent holds the other end of stdin: when it dies, however it dies, stdin ends. */
function listenForParent(log: Log, { stop }: StopListeners): () => void {
  let told = false;
  const onEnd = () => {
    if (told) return;
    told = true;
    log.info("stopping: stdin ended, the parent is gone");
    stop();
  };
  const { stdin } = process;
  stdin.once("end", onEnd).once("close", onEnd).once("error", onEnd);
  stdin.resume();
  return () => {
    told = true;
    stdin.destroy();
  };
}
