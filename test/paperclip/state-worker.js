// @ts-check
// A plugin's worker, as the host runs it: does with `ctx.state` what it is asked. Copied to where the host's packages
// are, which it imports.

// @ts-expect-error: it isn't among our packages.
import { definePlugin, runWorker } from "@paperclipai/plugin-sdk";

const plugin = definePlugin({
  /** @param {any} context */
  async setup(context) {
    context.data.register("state", async (/** @type {any} */ { verb, place, value }) => ({
      result: await context.state[verb](place, value),
    }));
  },
});

runWorker(plugin, import.meta.url);
