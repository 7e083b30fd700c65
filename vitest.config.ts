import { configDefaults, defineConfig } from "vitest/config";

/** These need the host's packages, which scripts/ci/check-paperclip.sh installs. */
const paperclip =
  process.env["PLUGIN_STATE_TEST_PAPERCLIP_NEWER"] === undefined ? ["test/paperclip/**"] : [];

export default defineConfig({
  test: {
    globals: false,
    include: ["test/**/*.test.ts"],
    exclude: [...configDefaults.exclude, ...paperclip],
    globalSetup: ["test/support/global-setup.ts"],
    setupFiles: ["test/support/properties.ts"],
    testTimeout: 60_000,
    // What is waited for comes as late as the machine is slow. A time that is promised is measured.
    expect: { poll: { timeout: 20_000 } },
    hookTimeout: 60_000,
    // Two cores are busy for three quarters of the time with two: much of it is waiting.
    maxWorkers: 3,
    // A module is loaded once for each worker instead of once for each file: a seventh less time in all.
    isolate: false,
  },
});
