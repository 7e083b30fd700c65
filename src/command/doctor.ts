import { readDatabaseCommand } from "../config/config.ts";
import { doctorOptions } from "../config/options.ts";
import { resolveOptions } from "../config/resolve.ts";
import { databaseStartError } from "../database.ts";
import type { Connection } from "../postgres/connection.ts";
import type { ProblemKind, Verdict } from "../postgres/doctor/check.ts";
import {
  type ExamineOptions,
  examine,
  NoSuchRole,
  type Result,
} from "../postgres/doctor/examine.ts";
import { ExitCode, usageError } from "../start-error.ts";
import type { Invocation } from "./commands.ts";
import { print } from "./output.ts";
import { withDatabase } from "./with-database.ts";

const exitCodeOf: Readonly<Record<ProblemKind, number>> = {
  unavailable: ExitCode.databaseUnavailable,
  permission: ExitCode.noPermission,
  configuration: ExitCode.configuration,
};

/** `plugin-state doctor`: prints what each check found; the exit code is that of the first problem. */
export async function doctor({ flags, environment }: Invocation): Promise<number> {
  const resolved = resolveOptions(doctorOptions, flags, environment);
  const { role, json } = resolved.values;
  const read = readDatabaseCommand(resolved, environment);
  const { database: which, stateSchema } = read.config;
  const options = {
    stateSchema,
    isEmbedded: which.kind === "embedded",
    ...(role === undefined ? {} : { role }),
  };
  const results = await withDatabase(read, ({ database }) =>
    examineOrSayWhyNot(database.connection, options),
  );
  await print(json ? asJson(results) : asLines(results));
  const kind = results.find(({ verdict }) => verdict === "problem")?.kind;
  return kind === undefined ? ExitCode.ok : exitCodeOf[kind];
}

/** A database that can't be reached is the one thing found. */
async function examineOrSayWhyNot(
  connection: Connection,
  options: ExamineOptions,
): Promise<Result[]> {
  try {
    return await examine(connection, options);
  } catch (cause) {
    if (cause instanceof NoSuchRole) throw usageError(cause.message);
    const { exitCode, message, hint } = databaseStartError(cause);
    const reason =
      cause instanceof Error && exitCode === ExitCode.databaseUnavailable
        ? `: ${cause.message}`
        : "";
    return [
      {
        name: "connection",
        verdict: "problem",
        message: `${message}${reason}`,
        remedy:
          hint ?? "Check the database URL, and that the server runs and can be reached from here.",
        kind: kindOf(exitCode),
      },
    ];
  }
}

function kindOf(exitCode: number): ProblemKind {
  if (exitCode === ExitCode.databaseUnavailable) return "unavailable";
  return exitCode === ExitCode.noPermission ? "permission" : "configuration";
}

function worst(results: readonly Result[]): Verdict {
  const has = (verdict: Verdict) => results.some((one) => one.verdict === verdict);
  return has("problem") ? "problem" : has("warning") ? "warning" : "ok";
}

function asJson(results: readonly Result[]): string {
  const checks = results.map(({ name, verdict, message, remedy, kind }) => ({
    name,
    verdict,
    message,
    remedy,
    kind,
  }));
  return `${JSON.stringify({ verdict: worst(results), checks }, undefined, 2)}\n`;
}

function asLines(results: readonly Result[]): string {
  const width = Math.max(...results.map(({ name }) => name.length));
  const indent = " ".repeat("problem  ".length + width + 2);
  const lines = results.map(({ name, verdict, message, remedy }) => {
    const advice = remedy === undefined ? "" : `\n${remedy.replace(/^/gm, indent)}`;
    return `${verdict.padEnd(9)}${name.padEnd(width)}  ${message}${advice}\n`;
  });
  return lines.join("");
}
