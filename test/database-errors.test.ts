import pg from "pg";
import { expect, test } from "vitest";
import { isConflict, isConnectionLost, isOutcomeUnknown } from "../src/postgres/errors.ts";

/** What pg makes of an ErrorResponse, whose severity is in the server's language. */
function errorOf(severity: string, code: string): pg.DatabaseError {
  return Object.assign(new pg.DatabaseError("…", 1, "error"), { severity, code });
}

test.for([
  ["ERROR", "40001"],
  ["FEHLER", "40001"],
  ["오류", "40001"],
])(
  "a statement that a server refuses with %s %s didn't run, and its connection stays",
  ([severity, code]) => {
    const error = errorOf(severity!, code!);
    expect(isConflict(error)).toBe(true);
    expect(isConnectionLost(error)).toBe(false);
    expect(isOutcomeUnknown(error)).toBe(false);
  },
);

test.for([
  ["FATAL", "57P01"],
  ["FATAL", "XX000"],
  ["PANIC", "XX000"],
  ["ВАЖНО", "57P01"],
  ["致命的エラー", "08006"],
])(
  "%s %s ends the connection, and nobody knows what became of its statement",
  ([severity, code]) => {
    const error = errorOf(severity!, code!);
    expect(isConnectionLost(error)).toBe(true);
    expect(isOutcomeUnknown(error)).toBe(true);
  },
);

test("what isn't said by the server is a lost connection", () => {
  expect(isConnectionLost(new Error("read ECONNRESET"))).toBe(true);
  expect(isOutcomeUnknown(new Error("read ECONNRESET"))).toBe(true);
});
