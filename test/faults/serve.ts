import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { TestClient } from "../support/client.ts";

/** The real command in a process of its own, ready, with a client. */
export interface Served extends AsyncDisposable {
  readonly client: TestClient;
  readonly address: string;
  /** kill -9; returns when the process is gone. */
  kill(): Promise<void>;
}

/** Runs `plugin-state serve` for plugin `demo` of a database. */
export async function serve(databaseUrl: string, ...flags: string[]): Promise<Served> {
  const args = ["dist/main.js", "serve", "--plugin", "demo", "--listen", "127.0.0.1:0", ...flags];
  const child = spawn(process.execPath, args, {
    stdio: ["ignore", "pipe", "ignore"],
    env: { ...process.env, DATABASE_URL: databaseUrl },
  });
  const address = await addressOf(child);
  const client = new TestClient(address);
  const kill = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  };
  return {
    client,
    address,
    kill,
    [Symbol.asyncDispose]: async () => {
      client[Symbol.dispose]();
      await kill();
    },
  };
}

async function addressOf(child: ChildProcess): Promise<string> {
  const [line] = await once(createInterface({ input: child.stdout! }), "line");
  const said = JSON.parse(line);
  if (said.event !== "ready") {
    throw new Error(`the sidecar didn't start: ${line}`);
  }
  return said.bindings[0].address;
}
