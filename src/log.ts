import { type DestinationStream, type LogFn, type Logger, pino } from "pino";
import { redactSecrets } from "./config/redact.ts";
import { errorForLog, textForLog } from "./error-for-log.ts";

/** How much is logged; `silent` logs nothing. */
export type LogLevel = "trace" | "debug" | "info" | "warn" | "error" | "fatal" | "silent";

/** The log: JSON lines on stderr. `log.info({ field }, "a sentence")`. */
export type Log = Logger;

/**
 * Unread log text kept in memory before lines are dropped. A host that stops reading stderr must
 * neither block the event loop nor fill the memory.
 */
const maxUnreadBytes = 1024 * 1024;

/** Names whose values are never logged, at the top and one level down. */
const secretFields = ["databaseUrl", "migrationDatabaseUrl", "url", "migrationUrl", "password"];
const redactedPaths = [...secretFields, ...secretFields.map((name) => `*.${name}`)];

/** Makes the process's log. Errors belong under `err`; their text is stripped of URL passwords. */
export function createLog(level: LogLevel, destination: DestinationStream = stderrLines()): Log {
  return pino(
    {
      name: "plugin-state",
      level,
      base: { name: "plugin-state", pid: process.pid },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: redactedPaths, censor: "[redacted]" },
      serializers: { err: errorForLog },
      hooks: { logMethod: redactMessage },
    },
    destination,
  );
}

/** Strips the sentence itself too; a bare error's message would become the sentence as it is. */
function redactMessage(this: Logger, args: Parameters<LogFn>, method: LogFn): void {
  const [first]: readonly unknown[] = args;
  const said = first instanceof Error && args.length === 1 ? [first, textForLog(first)] : args;
  const redacted = said.map((arg) => (typeof arg === "string" ? redactSecrets(arg) : arg));
  // The same arguments, texts still texts.
  method.apply(this, redacted as Parameters<LogFn>);
}

/**
 * Lines to `process.stderr`, dropped (and counted) while its reader is far behind.
 *
 * Not pino's own destination: synchronous, it sleeps on EAGAIN as long as a host doesn't read its
 * pipe, and the calls of every worker sleep with it.
 */
function stderrLines(): DestinationStream {
  let dropped = 0;
  return {
    write(line: string): void {
      if (process.stderr.writableLength > maxUnreadBytes) {
        dropped += 1;
        return;
      }
      if (dropped > 0) {
        const time = new Date().toISOString();
        process.stderr.write(
          `{"level":"warn","time":"${time}","msg":"log lines dropped: nobody read stderr","dropped":${dropped}}\n`,
        );
        dropped = 0;
      }
      process.stderr.write(line);
    },
  };
}
