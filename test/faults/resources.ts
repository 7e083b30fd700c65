import { afterAll } from "vitest";

/** Takes what is to be released at the end, and returns it. */
export type Use = <T extends AsyncDisposable | Disposable>(resource: T) => T;

/**
 * What releases resources when the tests of a file are done, in reverse order. For the file itself to
 * call: a module is loaded once for several files, so no hook of its own would be run for each.
 */
export function releasing(): Use {
  const resources: (AsyncDisposable | Disposable)[] = [];
  afterAll(async () => {
    for (const resource of resources.reverse()) {
      if (Symbol.asyncDispose in resource) {
        await resource[Symbol.asyncDispose]();
      } else {
        resource[Symbol.dispose]();
      }
    }
  });
  return (resource) => {
    resources.push(resource);
    return resource;
  };
}
