import { afterAll } from "vitest";

const resources: (AsyncDisposable | Disposable)[] = [];

/** Released when the tests of the file are done, in reverse order. */
export function use<T extends AsyncDisposable | Disposable>(resource: T): T {
  resources.push(resource);
  return resource;
}

afterAll(async () => {
  for (const resource of resources.reverse()) {
    if (Symbol.asyncDispose in resource) {
      await resource[Symbol.asyncDispose]();
    } else {
      resource[Symbol.dispose]();
    }
  }
});
