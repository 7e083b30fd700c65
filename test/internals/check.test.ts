import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { expect, test } from "vitest";
import { checkInternals, requireInsides } from "../../src/internals/check.ts";
import { testDatabase } from "../support/database.ts";
import { hostLine } from "../support/host-line.ts";

const require = createRequire(import.meta.url);
const { dependencies } = require("../../package.json");

test("all that is reached into is there, on this Node.js and in the versions that are installed", () => {
  expect(() => checkInternals()).not.toThrow();
});

test("the versions that were reached into are pinned, and those that are installed", () => {
  for (const name of ["@grpc/grpc-js"]) {
    expect(dependencies[name]).toBe(require(`${name}/package.json`).version);
  }
});

test("what isn't there is named, with its program", () => {
  const there = { of: () => "a 1.0", purpose: "see", isThere: () => true };
  const missing = { of: () => "b 2.0", purpose: "bound it", isThere: () => false };
  expect(() => requireInsides([there])).not.toThrow();
  expect(() => requireInsides([there, missing])).toThrow(
    expect.objectContaining({
      reason: "DEPENDENCY_UNUSABLE",
      exitCode: 78,
      message: expect.stringMatching(/^b 2\.0 .* to bound it$/),
    }),
  );
});

test("a sidecar whose grpc-js can't be bounded doesn't start: exit code 78, and the reason names it", async () => {
  await using database = await testDatabase();
  await database.addPlugin("demo");
  const without = new URL("without-data-frames.js", import.meta.url).href;
  const args = ["--plugin", "demo", "--listen", "127.0.0.1:0"];
  const child = spawn(process.execPath, ["--import", without, "dist/main.js", "serve", ...args], {
    stdio: ["ignore", "pipe", "ignore"],
    env: { ...process.env, ...database.environment },
  });
  const ended = once(child, "exit");
  expect(await hostLine(child)).toMatchObject({
    event: "failed",
    reason: "DEPENDENCY_UNUSABLE",
    retryable: false,
  });
  expect(await ended).toEqual([78, null]);
});
