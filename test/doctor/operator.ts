import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { withClient } from "../../src/postgres/connection.ts";
import type { Result } from "../../src/postgres/doctor/examine.ts";
import { Running, run } from "../command/run-command.ts";
import { TestClient } from "../support/client.ts";
import type { TestDatabase } from "../support/database.ts";
import { readyLine } from "../support/host-line.ts";

const main = fileURLToPath(new URL("../../dist/main.js", import.meta.url));
const mostRounds = 6;

/** Somebody who does what doctor says, to the letter, and asks again. */
export class Operator {
  readonly #database: TestDatabase;
  readonly #environment: Record<string, string>;
  /** Of doctor, and in the end of serve. */
  #flags: string[];
  readonly done: string[] = [];

  constructor(database: TestDatabase, flags: readonly string[], role?: string) {
    this.#database = database;
    this.#flags = [...flags];
    const url = new URL(database.ownerUrl);
    if (role !== undefined) url.username = role;
    this.#environment = { DATABASE_URL: url.href };
  }

  /** As the advice has it by now. */
  get stateSchema(): string {
    return this.#flags[1] ?? "plugin_sidecar";
  }

  /** Follows the advice until there is no problem left, and none to follow. */
  async follow(): Promise<void> {
    for (let round = 1; round <= mostRounds; round++) {
      const findings = await this.#ask();
      const bad = findings.filter(({ verdict }) => verdict !== "ok");
      const steps = bad.flatMap(({ remedy = [] }) => remedy.filter((step) => !("say" in step)));
      if (!bad.some(({ verdict }) => verdict === "problem") && steps.length === 0) {
        return;
      }
      for (const finding of bad) await this.#apply(finding);
    }
    throw new Error(`not well after ${mostRounds} rounds: ${this.done.join("\n")}`);
  }

  async #ask(): Promise<Result[]> {
    const { stdout, stderr } = await run(["doctor", "--json", ...this.#flags], this.#environment);
    if (stdout === "") throw new Error(stderr);
    return JSON.parse(stdout).checks;
  }

  async #apply({ name, message, remedy = [] }: Result): Promise<void> {
    // As psql has it: one session, each statement by itself.
    await withClient(this.#database.connection, async (client) => {
      for (const step of remedy) {
        if ("say" in step) continue;
        const what = "sql" in step ? step.sql : step.run;
        this.done.push(what);
        try {
          await ("sql" in step ? client.query(step.sql) : this.#shell(step.run));
        } catch (cause) {
          throw new Error(`${name}: ${message}\n${what}`, { cause });
        }
      }
    });
  }

  async #shell(command: string): Promise<void> {
    const [, schema] = / --state-schema (\S+)/.exec(command) ?? [];
    // Every further command is told the same.
    this.#flags = schema === undefined ? [] : ["--state-schema", schema];
    const script = `plugin-state() { "${process.execPath}" "${main}" "$@"; }\n${command}`;
    const { PATH = "" } = process.env;
    const child = spawn("bash", ["-ec", script], {
      env: { PATH, ...this.#environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const [said, [code]] = await Promise.all([
      Promise.all([text(child.stdout), text(child.stderr)]),
      once(child, "close"),
    ]);
    // Doctor, that a command may be, exits with what it found.
    if (code !== 0 && !command.startsWith("plugin-state doctor")) throw new Error(said.join(""));
  }

  /** Starts a sidecar as the operator would, keeps an entry in it, and returns what it then has. */
  async serve(plugin = "demo"): Promise<string> {
    const args = ["serve", "--plugin", plugin, "--listen", "127.0.0.1:0", "--no-migrate"];
    const sidecar = new Running(main, [...args, ...this.#flags], this.#environment);
    const { bindings } = await readyLine(sidecar.child);
    using client = new TestClient(bindings[0]!.address);
    const name = { scope: { kind: ScopeKind.INSTANCE }, key: "advised" };
    await client.call("set", { ...name, valueJson: '"kept"' });
    const { entry } = await client.call("get", name);
    sidecar.child.kill("SIGTERM");
    await sidecar.ended();
    return entry?.valueJson ?? "";
  }
}
