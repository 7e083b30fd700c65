import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { expect, test } from "vitest";
import { commands } from "../../src/command/commands.ts";
import { configurationPage } from "../../src/command/configuration-page.ts";
import { Running, run } from "./run-command.ts";

const packageJson = JSON.parse(
  readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
) as { version: string };

test.each([[["version"]], [["--version"]], [["-V"]]])("%j prints both versions", async (args) => {
  const { code, stdout, stderr } = await run(args);

  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toMatch(
    new RegExp(`^plugin-state ${packageJson.version}\nnode ${process.versions.node} `),
  );
});

test.each([[["--help"]], [["-h"]], [["help"]]])("%j lists every command", async (args) => {
  const { code, stdout, stderr } = await run(args);

  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  for (const { name, summary } of commands.filter(({ name }) => !name.includes(" "))) {
    expect(stdout).toContain(name);
    expect(stdout).toContain(summary);
  }
  expect(stdout).toContain("Exit codes:");
});

test.each(commands.map((command) => [command.name, command] as const))(
  "the help of %s names each flag with its default, its variable and the exit codes",
  async (name, { options, exitCodes }) => {
    const { code, stdout } = await run([...name.split(" "), "--help"]);

    expect(code).toBe(0);
    for (const { flag, env, fallbackText } of Object.values(options)) {
      expect(stdout).toContain(flag);
      expect(unwrapped(stdout)).toContain(env ?? flag);
      expect(unwrapped(stdout)).toContain(fallbackText ?? flag);
    }
    for (const { code: exitCode } of exitCodes) expect(stdout).toContain(`\n  ${exitCode} `);
  },
);

function unwrapped(help: string): string {
  return help.replace(/\s+/g, " ");
}

test("flags alone are flags of serve", async () => {
  const { stdout } = await run(["--log-level", "info", "--help"]);

  expect(stdout).toContain("Usage: plugin-state serve");
});

test.each([
  [["servee"], "unknown command 'servee'", "Did you mean serve?"],
  [
    ["xyz"],
    "unknown command 'xyz'",
    "The commands are serve, migrate, detach, plugin, doctor, grants, health, version",
  ],
  [["plugin", "ad"], "unknown command 'ad'", "Did you mean add?"],
  [["plugin"], "plugin-state plugin needs one of its commands", "plugin-state plugin --help"],
  [["plugin", "add"], "missing required argument 'KEY'", "plugin-state plugin add --help"],
  [["plugin", "add", "a b"], "KEY must be a plugin's key", 'not "a b"'],
  [["plugin", "add", "a", "--id", "7"], "--id must be a UUID", 'not "7"'],
  [["migrate", "now"], "unexpected argument 'now'", "plugin-state migrate --help"],
  [["health", "--adress", "x"], "unknown option '--adress'", "Did you mean --address?"],
  [["health", "--timeout-ms", "0"], "--timeout-ms must be", "from 1 to 600000"],
  [["health", "--address", "fd:3"], "--address fd:3", "only the process that has this descriptor"],
])("%j exits with 64 and says why on stderr", async (args, problem, advice) => {
  const { code, stdout, stderr } = await run(args);

  expect({ code, stdout }).toEqual({ code: 64, stdout: "" });
  expect(stderr).toContain(problem);
  expect(stderr).toContain(advice);
});

test.each([
  [["--lisen", "x"], "unknown option '--lisen'. Did you mean --listen?"],
  [["serve", "--plugin"], "option '--plugin <KEY>' argument missing"],
  [["serve", "now"], "unexpected argument 'now' for 'serve'"],
  [["--log-level", "info", "migrate"], "a command stands before its flags"],
  [
    ["--max-value-bytes", "many"],
    '--max-value-bytes must be a whole number from 1024 to 67108864, not "many"',
  ],
  [["--listen", "0.0.0.0:0"], "can be reached from other machines"],
])("serve with %j also tells the host, in one line on stdout", async (args, problem) => {
  const { code, stdout, stderr } = await run(args);

  expect(code).toBe(64);
  expect(stderr).not.toBe("");
  const failed = JSON.parse(stdout);
  expect(failed).toMatchObject({ event: "failed", reason: "USAGE", retryable: false });
  expect(failed.message).toContain(problem);
});

test("a password on the command line is in no error", async () => {
  const wrong = ["--database-urll=postgres://u:hunter2@h/db", "postgres://u:hunter2@h/db"];
  for (const args of [wrong, wrong.toReversed(), ["--database-url", "x://u:hunter2@h/db"]]) {
    const { code, stdout, stderr } = await run(args);

    expect(code).toBe(64);
    expect(stdout + stderr).not.toContain("hunter2");
  }
});

test("a file that can't be read is exit code 78, on both streams", async () => {
  const { code, stdout, stderr } = await run(["--database-url-file", "/nowhere/url"]);

  expect(code).toBe(78);
  expect(stderr).toContain("can't read /nowhere/url");
  expect(JSON.parse(stdout)).toMatchObject({ event: "failed", reason: "FILE_UNREADABLE" });
});

test.each([[["migrate"]], [["plugin", "list"]], [["plugin", "add", "a"]]])(
  "%j of a database that is away exits with 69 and shows no password",
  async (args) => {
    const { code, stdout, stderr } = await run(args, {
      DATABASE_URL: `postgres://u:hunter2@127.0.0.1:${await unusedPort()}/db`,
    });

    expect({ code, stdout }).toEqual({ code: 69, stdout: "" });
    expect(stderr).toContain("the database can't be reached: connect ECONNREFUSED");
    expect(stderr).not.toContain("hunter2");
  },
);

async function unusedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no TCP address");
  return address.port;
}

test("version starts neither gRPC nor the database driver", async () => {
  const main = new URL("../../dist/main.js", import.meta.url).pathname;
  const trace = new URL("trace-imports.js", import.meta.url).pathname;
  const traced = new Running("--import", [trace, main, "version"], {});

  const { code, stderr } = await traced.ended();

  expect(code).toBe(0);
  expect(stderr).toContain("commander");
  expect(stderr).not.toMatch(/@grpc|node_modules\/(pg|pino)\//);
});

test("docs/configuration.md is what the option tables say", () => {
  const page = readFileSync(new URL("../../docs/configuration.md", import.meta.url), "utf8");

  expect(page, "run: node scripts/generate-configuration-docs.js").toBe(configurationPage());
});
