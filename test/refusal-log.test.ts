import { expect, test } from "vitest";
import type { Log } from "../src/log.ts";
import { refusalLog } from "../src/refusal-log.ts";

test("calls without a good token are a line at once, not one each, and apart from other refusals", () => {
  const lines: unknown[][] = [];
  const tell = refusalLog({ warn: (...line: unknown[]) => lines.push(line) } as unknown as Log);

  for (let call = 0; call < 100; call++) tell("token");
  tell("connection");

  expect(lines).toEqual([
    [{ refusal: "token", times: 1 }, "refused calls without a good token"],
    [{ refusal: "connection", times: 1 }, expect.stringContaining("closed connections")],
  ]);
});
