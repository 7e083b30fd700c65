import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { HostDatabase } from "./host-database.ts";
import { type DoctorCheck, ended, problemsOf } from "./sidecar.ts";

const main = fileURLToPath(new URL("../../dist/main.js", import.meta.url));

/**
 * Does what `doctor` says about its problems, to the letter, as the owner: commands between backticks as they
 * stand, else the SQL below the first line. Returns the problems that are left then.
 */
export async function followAdvice(
  database: HostDatabase,
  ...flags: string[]
): Promise<DoctorCheck[]> {
  const followed = new Set<string>();
  for (;;) {
    const problems = await problemsOf(database, ...flags);
    const next = problems.find(({ remedy }) => remedy && !followed.has(remedy));
    if (next?.remedy === undefined) return problems;
    followed.add(next.remedy);
    await follow(database, next.remedy);
  }
}

async function follow(database: HostDatabase, remedy: string): Promise<void> {
  const command = /`plugin-state ([^`]+)`/.exec(remedy)?.[1];
  if (command !== undefined) {
    await runAsWritten(database, command);
    return;
  }
  const sql = remedy.slice(remedy.indexOf(":\n") + 1);
  if (sql.trimEnd().endsWith(";")) await database.psql(sql);
}

async function runAsWritten({ ownerUrl }: HostDatabase, command: string): Promise<void> {
  const { PATH = "" } = process.env;
  const child = spawn(process.execPath, [main, ...command.split(" ")], {
    env: { PATH, DATABASE_URL: ownerUrl },
  });
  const { code, stderr } = await ended(child);
  if (code !== 0) throw new Error(`plugin-state ${command} ended with ${code}: ${stderr}`);
}
