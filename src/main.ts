#!/usr/bin/env node
import type { CommandSpec } from "./command/commands.ts";
import { exitWith } from "./command/exit.ts";
import { printFailed } from "./command/host-line.ts";
import { ignoreClosedOutput, printError } from "./command/output.ts";
import { runCommandLine, WrongCommandLine } from "./command/program.ts";
import { textForLog } from "./error-for-log.ts";
import { ExitCode, StartError } from "./start-error.ts";

/** The command `plugin-state`: runs what the command line says, and reports what it throws. */
async function main(): Promise<number> {
  try {
    return await runCommandLine(process.argv.slice(2), process.env, (command, invocation) =>
      command.run(invocation).catch((error: unknown) => report(error, command)),
    );
  } catch (error) {
    if (error instanceof WrongCommandLine) return report(error.usage, error.command);
    return report(error, undefined);
  }
}

/** Says on stderr what went wrong; a host reads it from stdout, where it waits for `serve`. */
async function report(error: unknown, command: CommandSpec | undefined): Promise<number> {
  const failure = error instanceof StartError ? error : bug(error);
  const hint = failure.hint === undefined ? "" : `${failure.hint}\n`;
  await printError(`plugin-state: ${messageOf(failure)}\n${hint}`);
  if (command?.name === "serve") await printFailed(failure);
  return failure.exitCode;
}

/** With what PostgreSQL or the network said, where that is all there is to go by: no log has it. */
function messageOf(failure: StartError): string {
  return saidByDatabase.has(failure.reason) ? textForLog(failure) : failure.message;
}

const saidByDatabase: ReadonlySet<string> = new Set([
  "DATABASE_UNAVAILABLE",
  "DATABASE_SETUP_FAILED",
]);

function bug(error: unknown): StartError {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return new StartError("BUG", text, { exitCode: ExitCode.bug, cause: error });
}

ignoreClosedOutput();
exitWith(await main());
