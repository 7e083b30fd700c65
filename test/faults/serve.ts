import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { TestClient } from "../support/client.ts";
import { readyLine } from "../support/host-line.ts";

/** The real command in a process of its own, ready, with a client. */
export interface Served extends AsyncDisposable {
  readonly client: TestClient;
  readonly address: string;
  /** kill -9; returns when the process is gone. */
  kill(): Promise<void>;
  /** Whether it runs, and what it said last on stderr: for a test that failed. */
  condition(): string;
}

const lastLines = 20;

/** Runs `plugin-state serve` for plugin `demo` of a database. */
export async function serve(databaseUrl: string, ...flags: string[]): Promise<Served> {
  const args = ["dist/main.js", "serve", "--plugin", "demo", "--listen", "127.0.0.1:0", ...flags];
  const child = spawn(process.execPath, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, DATABASE_URL: databaseUrl },
  });
  const log: string[] = [];
  createInterface({ input: child.stderr! }).on("line", (line) => {
    log.push(line);
    log.splice(0, log.length - lastLines);
  });
  const { address } = (await readyLine(child)).bindings[0]!;
  const client = new TestClient(address);
  const kill = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  };
  const condition = () => {
    const end = child.exitCode ?? child.signalCode;
    return `the sidecar ${end === null ? "runs" : `ended with ${end}`}; its log: ${log.join("\n")}`;
  };
  return {
    client,
    address,
    kill,
    condition,
    [Symbol.asyncDispose]: async () => {
      client[Symbol.dispose]();
      await kill();
    },
  };
}
