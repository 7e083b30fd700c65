/** How long something forgotten, or output that nobody reads, may keep an ended process alive. */
const exitGraceMs = 1_000;

/** Ends the process with this code, as soon as nothing is left to do and in a second at the latest. */
export function exitWith(code: number): void {
  process.exitCode = code;
  setTimeout(() => process.exit(), exitGraceMs).unref();
}
