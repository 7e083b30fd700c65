import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { Remedy } from "../../src/postgres/doctor/remedy.ts";
import { TestClient } from "../support/client.ts";
import { healthOf } from "../support/health.ts";
import { type HostLine, hostLine } from "../support/host-line.ts";

const main = fileURLToPath(new URL("../../dist/main.js", import.meta.url));
const stateSchema = ["--state-schema", "public"];

/** What a command printed, and how it ended. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Which database, as whom: both of a {@link HostDatabase}'s. */
interface Urls {
  readonly ownerUrl: string;
  readonly servingUrl: string;
}

/** Runs `plugin-state COMMAND --state-schema public` as the owner. */
export function command(database: Urls, name: string, ...flags: string[]): Promise<Ended> {
  return ended(start(database, name, flags));
}

/** The same that still runs, for a test that kills it. */
export function start({ ownerUrl }: Urls, name: string, flags: readonly string[]): ChildProcess {
  const { PATH = "" } = process.env;
  return spawn(process.execPath, [main, name, ...stateSchema, ...flags], {
    env: { PATH, DATABASE_URL: ownerUrl },
  });
}

/** What a process printed until its end. */
export async function ended(child: ChildProcess): Promise<Ended> {
  const output = { stdout: "", stderr: "" };
  child.stdout?.on("data", (chunk) => (output.stdout += chunk));
  child.stderr?.on("data", (chunk) => (output.stderr += chunk));
  const [code] = await once(child, "close");
  return { code, ...output };
}

/** `plugin-state migrate`, which has to succeed. */
export async function attach(database: Urls & { grantServing(): Promise<void> }): Promise<void> {
  const { code, stdout, stderr } = await command(database, "migrate");
  if (code !== 0) throw new Error(`migrate ended with ${code}: ${stdout}${stderr}`);
  await database.grantServing();
}

/** SQL that lets a role serve. */
export async function grants(role: string): Promise<string> {
  const child = spawn(process.execPath, [main, "grants", role, ...stateSchema]);
  const { code, stdout, stderr } = await ended(child);
  if (code !== 0) throw new Error(`grants ended with ${code}: ${stderr}`);
  return stdout;
}

/** One line of what `doctor` says. */
export interface DoctorCheck {
  readonly name: string;
  readonly verdict: "ok" | "warning" | "problem";
  readonly message: string;
  /** What to do about it, in order. */
  readonly remedy?: Remedy;
}

/** All that `doctor` says. */
export async function checksOf(database: Urls, ...flags: string[]): Promise<DoctorCheck[]> {
  const { stdout, stderr } = await command(database, "doctor", "--json", ...flags);
  if (stdout === "") throw new Error(`doctor said nothing: ${stderr}`);
  return (JSON.parse(stdout) as { readonly checks: DoctorCheck[] }).checks;
}

/** What it says is a problem. */
export async function problemsOf(database: Urls, ...flags: string[]): Promise<DoctorCheck[]> {
  const checks = await checksOf(database, ...flags);
  return checks.filter(({ verdict }) => verdict === "problem");
}

/** A sidecar in a process of its own, as the serving role. */
export class AttachedSidecar implements AsyncDisposable {
  readonly #child: ChildProcess;
  /** Of each plugin, by its key. */
  readonly clients = new Map<string, TestClient>();
  #log = "";
  #line: HostLine | undefined;

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stderr?.on("data", (chunk) => (this.#log += chunk));
  }

  /** Serves plugins; what the first line says is left to the caller. */
  static async start(
    { servingUrl }: Urls,
    plugins: readonly string[] = ["demo"],
    ...flags: string[]
  ): Promise<AttachedSidecar> {
    const { PATH = "" } = process.env;
    const bindings = plugins.flatMap((key) => ["--plugin", key, "--listen", "127.0.0.1:0"]);
    const args = [main, "serve", ...stateSchema, "--no-migrate", ...bindings, ...flags];
    const child = spawn(process.execPath, args, { env: { PATH, DATABASE_URL: servingUrl } });
    const sidecar = new AttachedSidecar(child);
    sidecar.#line = await hostLine(child);
    for (const { plugin, address } of sidecar.#line.bindings ?? []) {
      sidecar.clients.set(plugin, new TestClient(address));
    }
    return sidecar;
  }

  /** Its line on stdout. */
  get line(): HostLine {
    return this.#line!;
  }

  /** The first plugin's. */
  get client(): TestClient {
    const [client] = this.clients.values();
    if (client === undefined) throw new Error(`it doesn't serve: ${JSON.stringify(this.#line)}`);
    return client;
  }

  /** What it said on stderr so far. */
  get log(): string {
    return this.#log;
  }

  /** `SERVING` or `NOT_SERVING`. */
  async health(): Promise<string | undefined> {
    return await healthOf(this.line.bindings[0]!.address);
  }

  async stop(): Promise<void> {
    for (const client of this.clients.values()) client[Symbol.dispose]();
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGTERM");
    await once(this.#child, "exit");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
