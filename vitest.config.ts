import { defineConfig, type TestProjectConfiguration } from "vitest/config";

const common = {
  globals: false,
  testTimeout: 30_000,
  // What is waited for comes as late as the machine is slow. A time that is promised is measured.
  expect: { poll: { timeout: 20_000 } },
  hookTimeout: 60_000,
};
const heap = "test/heap/**/*.test.ts";

const projects: TestProjectConfiguration[] = [
  {
    test: {
      ...common,
      name: "suite",
      include: ["test/**/*.test.ts"],
      exclude: [heap],
      // A module is loaded once for each worker instead of once for each file: a seventh less time in all.
      isolate: false,
    },
  },
  {
    test: {
      ...common,
      name: "heap",
      include: [heap],
      // What is counted has a heap of its own, in which V8 doesn't decide by what it has seen to make
      // something old at once.
      isolate: true,
      pool: "forks",
      execArgv: ["--no-allocation-site-pretenuring"],
    },
  },
];

export default defineConfig({
  test: {
    globalSetup: ["test/support/global-setup.ts"],
    // Two cores are busy for three quarters of the time with two: much of it is waiting.
    maxWorkers: 3,
    projects,
  },
});
