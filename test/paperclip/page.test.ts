import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { databaseUrl } from "../support/database.ts";
import { readyLine } from "../support/host-line.ts";
import { HostDatabase } from "./host-database.ts";
import { ended } from "./sidecar.ts";

const root = new URL("../../", import.meta.url);
const page = readFileSync(new URL("docs/paperclip.md", root), "utf8");
const role = "plugin_state_app";

/** Commands of the page, and what it says in a comment before them. */
interface Block {
  readonly title: string;
  readonly commands: string;
  readonly mayFail: boolean;
  readonly serves: boolean;
}

const blocks: readonly Block[] = [
  ...page.matchAll(/(?:<!-- (?<remark>.*?) -->\n)?```sh\n(?<commands>.*?)```/gs),
].map(({ groups }, index) => {
  const { commands = "", remark = "" } = groups ?? {};
  const title = `${index + 1}: ${commands.split("\n").find((line) => line !== "")}`;
  return {
    title,
    commands,
    mayFail: remark.startsWith("may fail"),
    serves: remark.startsWith("serves"),
  };
});

describe("docs/paperclip.md, on a database that the host has just made, from its top to its end:", () => {
  let database: HostDatabase;
  let directory: string;
  let before: string;

  beforeAll(async () => {
    database = await HostDatabase.create();
    directory = await mkdtemp(join(tmpdir(), "paperclip-page-"));
    const command = join(directory, "plugin-state");
    const main = fileURLToPath(new URL("dist/main.js", root));
    await writeFile(command, `#!/bin/sh\nexec ${process.execPath} ${main} "$@"\n`);
    await chmod(command, 0o755);
    const pluginId = await database.addPlugin("acme.notes");
    await database.store().set(pluginId, { scopeKind: "instance", stateKey: "a", value: 1 });
    before = await database.dump("--schema-only");
  });

  afterAll(async () => {
    await database[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });

  test("has commands to attach, upgrade, back up, restore and detach", () => {
    for (const word of ["doctor", "migrate", "grants", "serve", "pg_dump", "psql", "detach"]) {
      expect(blocks.some(({ commands }) => commands.includes(word))).toBe(true);
    }
  });

  test.each(blocks.map((block) => [block.title, block] as const))(
    "%s",
    async (_title, { commands, mayFail, serves }) => {
      const shell = run(commands);
      if (serves) {
        onTestFinished(async () => {
          shell.kill("SIGTERM");
          await once(shell, "exit");
        });
        expect(await readyLine(shell)).toMatchObject({ event: "ready" });
        return;
      }
      const { code, stdout, stderr } = await ended(shell);
      expect(code === 0 || mayFail, `${stdout}${stderr}`).toBe(true);
    },
  );

  test("leaves the host's schema as it found it", async () => {
    expect(await database.dump("--schema-only")).toBe(before);
  });

  /** As somebody would type it, in a directory of its own. */
  function run(commands: string): ChildProcess {
    const { PATH = "", PGHOST = "", PGPORT = "", PGUSER = "" } = process.env;
    const programs = process.env["PLUGIN_STATE_TEST_PG_PROGRAMS"] ?? "";
    const serving = new URL(databaseUrl(database.ownerUrl, database.name));
    serving.username = role;
    return spawn("bash", ["--norc", "-euo", "pipefail", "-c", serveInPlace(commands)], {
      cwd: directory,
      env: {
        ...{ PATH: `${directory}:${programs}:${PATH}`, PGHOST, PGPORT, PGUSER },
        OWNER_URL: database.ownerUrl,
        SERVING_URL: serving.href,
      },
    });
  }
});

/** A single command takes the shell's place, so that a signal reaches it. */
function serveInPlace(commands: string): string {
  return commands.trim().includes("\n")
    ? commands
    : commands.replace(/^((?:\w+=\S+ )*)/, "exec env $1");
}
