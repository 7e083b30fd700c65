import { redactSecrets } from "../config/redact.ts";

/**
 * Keeps a closed stdout or stderr from ending the process: what can't be written is dropped.
 * Without a listener Node throws EPIPE as an uncaught exception.
 */
export function ignoreClosedOutput(): void {
  process.stdout.on("error", () => {});
  process.stderr.on("error", () => {});
}

/** Writes a text on stdout and waits until it is handed over, so that exiting doesn't lose it. */
export function print(text: string): Promise<void> {
  return write(process.stdout, text);
}

/** Writes a text for people on stderr, without passwords. */
export function printError(text: string): Promise<void> {
  return write(process.stderr, redactSecrets(text));
}

function write(stream: NodeJS.WriteStream, text: string): Promise<void> {
  // A closed stream is no error here: there is nobody to tell.
  return new Promise((resolve) => stream.write(text, () => resolve()));
}
