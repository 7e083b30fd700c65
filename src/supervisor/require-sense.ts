import { commandLine, environment } from "./command-line.ts";
import type { SidecarOptions } from "./options.ts";
import { defaultRestartRule } from "./restart-policy.ts";

/** Refuses what no sidecar could be started with. @throws {TypeError} that says what is wrong. */
export function requireSense(options: SidecarOptions): void {
  const { bindings = [], config, sockets = [], holdSockets, token } = options;
  if ((bindings.length === 0) === (config === undefined)) {
    throw new TypeError("give either bindings, at least one, or config");
  }
  if (sockets.length > 0 && (config === undefined || holdSockets === false)) {
    throw new TypeError("sockets are for the bindings of a config, and held");
  }
  if (token !== undefined && bindings.length !== 1) {
    throw new TypeError(
      "a token is good for one binding only: give each its own by a config with token_env, and env",
    );
  }
  for (const [name, value] of Object.entries(times(options))) {
    if (!Number.isFinite(value) || value < 0) {
      throw new TypeError(`${name} must be a number from 0 up, not ${value}`);
    }
  }
  // What the system would only say when it runs: a NUL in an argument or a variable.
  const texts = [...commandLine(options, []), ...Object.values(environment(options))];
  if (texts.some((text) => text.includes("\0"))) throw new TypeError("an option holds a NUL");
}

function times(options: SidecarOptions): Record<string, number> {
  const { startTimeoutMs = 0, stopTimeoutMs = 0, holdMs = 0, healthPollMs = 0 } = options;
  const { random: _, ...rule } = { ...defaultRestartRule, ...options.restart };
  return { startTimeoutMs, stopTimeoutMs, holdMs, healthPollMs, ...rule };
}
