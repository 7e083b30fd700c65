import { readDatabaseCommand } from "../config/config.ts";
import { doctorOptions } from "../config/options.ts";
import { redactSecrets } from "../config/redact.ts";
import { type Resolved, resolveOptions } from "../config/resolve.ts";
import { databaseStartError } from "../database.ts";
import type { Connection } from "../postgres/connection.ts";
import type { ProblemKind, Verdict } from "../postgres/doctor/check.ts";
import {
  type ExamineOptions,
  examine,
  NoSuchRole,
  type Result,
} from "../postgres/doctor/examine.ts";
import { type Step, say, shellQuote } from "../postgres/doctor/remedy.ts";
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
    databaseFlags: databaseFlags(resolved),
    ...(role === undefined ? {} : { role }),
  };
  const results = await withDatabase(read, ({ database }) =>
    examineOrSayWhyNot(database.connection, options),
  );
  await print(json ? asJson(results) : asLines(results));
  const kind = results.find(({ verdict }) => verdict === "problem")?.kind;
  return kind === undefined ? ExitCode.ok : exitCodeOf[kind];
}

/** The flags by which doctor was told the database: what it advises has to be told the same. */
function databaseFlags({ values, sources }: Resolved<typeof doctorOptions>): string[] {
  const { databaseUrl, databaseUrlFile, dataDir, noPreparedStatements } = doctorOptions;
  const flags = [
    ...(sources.databaseUrl === "flag" ? [databaseUrl.flag, hidden(values.databaseUrl)] : []),
    ...(sources.databaseUrlFile === "flag" ? [databaseUrlFile.flag, values.databaseUrlFile] : []),
    ...(sources.dataDir === "flag" ? [dataDir.flag, values.dataDir] : []),
    ...(sources.noPreparedStatements === "flag" ? [noPreparedStatements.flag] : []),
  ];
  return flags.map((word) => shellQuote(word ?? ""));
}

/** A URL without its password, for which the word PASSWORD stands. */
function hidden(url = ""): string {
  return redactSecrets(url).replaceAll("***", "PASSWORD");
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
        remedy: [
          say(
            hint ??
              "Check the database URL, and that the server runs and can be reached from here.",
          ),
        ],
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

/** Commands and statements stand further in than sentences: they are to be run as they are. */
function asLines(results: readonly Result[]): string {
  const width = Math.max(...results.map(({ name }) => name.length));
  const indent = " ".repeat("problem  ".length + width + 2);
  const lines = results.map(({ name, verdict, message, remedy = [] }) => {
    const steps = remedy.map((step) => `\n${linesOf(step).replace(/^/gm, indent)}`);
    return `${verdict.padEnd(9)}${name.padEnd(width)}  ${message}${steps.join("")}\n`;
  });
  return lines.join("");
}

function linesOf(step: Step): string {
  if ("say" in step) return step.say;
  return ("run" in step ? step.run : step.sql).replace(/^/gm, "  ");
}
