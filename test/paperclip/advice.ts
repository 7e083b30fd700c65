import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Remedy } from "../../src/postgres/doctor/remedy.ts";
import type { HostDatabase } from "./host-database.ts";
import { type DoctorCheck, ended, problemsOf } from "./sidecar.ts";

const main = fileURLToPath(new URL("../../dist/main.js", import.meta.url));

/**
 * Does what `doctor` says about its problems, to the letter, as the owner: one after the other, each once. Returns
 * the problems that are left then.
 */
export async function followAdvice(
  database: HostDatabase,
  ...flags: string[]
): Promise<DoctorCheck[]> {
  const followed = new Set<string>();
  for (;;) {
    const problems = await problemsOf(database, ...flags);
    const next = problems.find((problem) => !followed.has(JSON.stringify(problem.remedy)));
    if (next === undefined) return problems;
    followed.add(JSON.stringify(next.remedy));
    await take(database, next.remedy);
  }
}

/** Takes the steps of a piece of advice. */
export async function take(database: HostDatabase, remedy: Remedy = []): Promise<void> {
  for (const step of remedy) {
    if ("run" in step) await shell(database, step.run);
    if ("sql" in step) await database.psql(step.sql);
  }
}

async function shell({ ownerUrl }: HostDatabase, line: string): Promise<void> {
  const { PATH = "" } = process.env;
  const script = `plugin-state() { "${process.execPath}" "${main}" "$@"; }\n${line}`;
  const child = spawn("bash", ["--norc", "-euo", "pipefail", "-c", script], {
    env: { PATH, DATABASE_URL: ownerUrl },
  });
  const { code, stderr } = await ended(child);
  if (code !== 0) throw new Error(`${line} ended with ${code}: ${stderr}`);
}
