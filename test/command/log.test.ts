import { expect, test } from "vitest";
import { redactSecrets } from "../../src/config/redact.ts";
import { createLog } from "../../src/log.ts";

function logged(write: (log: ReturnType<typeof createLog>) => void): Record<string, unknown> {
  const lines: string[] = [];
  write(createLog("trace", { write: (line) => lines.push(line) }));
  return JSON.parse(lines.join(""));
}

test("a line has a level in words, an ISO time, the program and the process", () => {
  const line = logged((log) => log.info({ rows: 3 }, "swept"));

  expect(line).toEqual({
    level: "info",
    time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    name: "plugin-state",
    pid: process.pid,
    rows: 3,
    msg: "swept",
  });
});

test("secret fields are never logged", () => {
  const line = logged((log) => log.info({ url: "a", database: { password: "b", name: "c" } }, ""));

  expect(line).toMatchObject({
    url: "[redacted]",
    database: { password: "[redacted]", name: "c" },
  });
});

test("the sentence, and the message of a bare error, are stripped of passwords too", () => {
  const lost = "lost postgres://u:hunter2@h/db";

  expect(logged((log) => log.warn(lost))["msg"]).toBe("lost postgres://u:***@h/db");
  expect(logged((log) => log.warn({ a: 1 }, lost))["msg"]).toBe("lost postgres://u:***@h/db");
  expect(JSON.stringify(logged((log) => log.warn(new Error(lost))))).not.toContain("hunter2");
});

test("of an error its message, causes and code are logged, and nothing else it carries", () => {
  const cause = Object.assign(new Error("duplicate key"), { detail: "Key (value)=(hunter2)" });
  const error = Object.assign(new Error("can't write", { cause }), {
    code: "23505",
    detail: "Key (value)=(hunter2)",
  });

  const line = logged((log) => log.error({ err: error }, "failed"));

  expect(JSON.stringify(line)).not.toContain("hunter2");
  expect(line["err"]).toMatchObject({ message: "can't write: duplicate key", code: "23505" });
});

test("what an error repeats of its cause is logged once", () => {
  const cause = new Error("listen EADDRINUSE");
  const error = new Error("can't listen: listen EADDRINUSE", { cause });

  const line = logged((log) => log.error({ err: error }, "failed"));

  expect(line["err"]).toMatchObject({ message: "can't listen: listen EADDRINUSE" });
});

/** An error as pg makes it of PostgreSQL's answer. */
function databaseError(text: string, fields: Record<string, string>): Error {
  return Object.assign(new Error(text), { severity: "ERROR", routine: "ExecInsert", ...fields });
}

test.each([
  ["a data exception", { code: "22P02" }],
  ["what a trigger raises", { code: "P0001", routine: "exec_stmt_raise" }],
  ["what a trigger raises under any code", { code: "42501", routine: "exec_stmt_raise" }],
  ["a code that nobody knows", { code: "ZZ001" }],
])(
  "PostgreSQL's text of %s isn't logged, wherever it stands: it may quote a value",
  (_, fields) => {
    const cause = databaseError("no hunter2", fields);
    const error = new Error("can't write", { cause });

    const lines = [
      logged((log) => log.error({ err: error }, "failed")),
      logged((log) => log.error({ err: cause }, "failed")),
      logged((log) => log.error(cause)),
    ];

    expect(JSON.stringify(lines)).not.toContain("hunter2");
    expect(lines[0]?.["err"]).toMatchObject({
      message: expect.stringMatching(/^can't write: PostgreSQL's text isn't logged/),
    });
    expect(lines[1]?.["err"]).toMatchObject({ code: fields.code });
  },
);

test.each([
  ["permission denied for table plugin_state", { code: "42501" }],
  ["terminating connection due to administrator command", { code: "57P01" }],
  [
    "schema host has no tables plugins and plugin_state",
    {
      code: "42P01",
      routine: "exec_stmt_raise",
      where: "PL/pgSQL function inline_code_block line 6 at RAISE",
    },
  ],
])("what an operator has to mend is logged as PostgreSQL says it: %s", (text, fields) => {
  const line = logged((log) => log.error({ err: databaseError(text, fields) }, "failed"));

  expect(line["err"]).toMatchObject({ message: text, code: fields.code });
});

test("the attempts inside an AggregateError are logged: its own message is empty", () => {
  const error = new AggregateError([new Error("connect ECONNREFUSED ::1:1"), new Error("no")]);

  const line = logged((log) => log.error({ err: error }, "failed"));

  expect(line["err"]).toMatchObject({
    message: "Error: connect ECONNREFUSED ::1:1; Error: no",
  });
});

test.each([
  ["postgres://u:hunter2@h/db", "postgres://u:***@h/db"],
  ["postgres://u:hunter2@with@h/db", "postgres://u:***@h/db"],
  ["postgres://u:hunter2/x@h/db and more", "postgres://u:***@h/db and more"],
  ['postgres://u:hun"ter2@h/db', "postgres://u:***@h/db"],
  ["postgres://:hunter2@h/db", "postgres://:***@h/db"],
  ["host=h password=hunter2 dbname=d", "host=h password=*** dbname=d"],
  ["host=h password='hunter2 x' dbname=d", "host=h password=*** dbname=d"],
  ["postgres://h/db?user=u&password=hunter2&x=1", "postgres://h/db?user=u&password=***&x=1"],
  ["postgres://u@h:5432/db", "postgres://u@h:5432/db"],
  ["must be postgres://USER:PASSWORD@HOST/DB", "must be postgres://USER:PASSWORD@HOST/DB"],
])("%s is shown as %s", (text, shown) => {
  expect(redactSecrets(text)).toBe(shown);
});
