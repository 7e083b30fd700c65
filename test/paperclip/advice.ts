import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Remedy } from "../../src/postgres/doctor/remedy.ts";
import type { HostDatabase } from "./host-database.ts";
import { type DoctorCheck, ended, problemsOf } from "./sidecar.ts";

const main = fileURLToPath(new URL("../../dist/main.js", import.meta.url));

/**
 * Does what `doctor` says about its problems, to the letter, as the owner: its commands and its SQL. Returns the
 * problems that are left then.
 */
export async function followAdvice(
  database: HostDatabase,
  ...flags: string[]
): Promise<DoctorCheck[]> {
  const followed = new Set<string>();
  for (;;) {
    const problems = await problemsOf(database, ...flags);
    const next = problems.find(({ remedy }) => !followed.has(JSON.stringify(remedy)));
    if (next?.remedy === undefined) return problems;
    followed.add(JSON.stringify(next.remedy));
    await follow(database, next.remedy);
  }
}

/** Runs the commands and the SQL of a remedy, in order. */
export async function follow(database: HostDatabase, remedy: Remedy): Promise<void> {
  for (const step of remedy) {
    if ("sql" in step) await database.psql(step.sql);
    if ("run" in step) await runAsWritten(database, step.run);
  }
}

async function runAsWritten({ ownerUrl }: HostDatabase, command: string): Promise<void> {
  const { PATH = "" } = process.env;
  const script = `plugin-state() { "${process.execPath}" "${main}" "$@"; }\n${command}`;
  const child = spawn("bash", ["-ec", script], { env: { PATH, DATABASE_URL: ownerUrl } });
  const { code, stderr } = await ended(child);
  if (code !== 0) throw new Error(`${command} ended with ${code}: ${stderr}`);
}
