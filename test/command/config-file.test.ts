import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readConfigFile } from "../../src/config/config-file.ts";
import { configFileJsonSchema } from "../../src/config/config-file-schema.ts";
import { ExitCode, StartError } from "../../src/start-error.ts";

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "plugin-state-"));
});

afterAll(() => rmSync(directory, { recursive: true }));

const token = "0123456789abcdef";

async function read(text: string, environment = {}, insecure = false) {
  const path = join(directory, "bindings.yaml");
  writeFileSync(path, text);
  return await readConfigFile(path, { environment, insecure });
}

async function refusal(text: string, environment = {}): Promise<StartError> {
  const error: unknown = await read(text, environment).catch((reason: unknown) => reason);
  if (!(error instanceof StartError)) throw new Error("it was accepted");
  return error;
}

const full = `
bindings:
  - plugin: acme.notes
    listen: unix:/run/ps/notes.sock
    token_file: notes.token
    capabilities: [plugin.state.read]
    scopes: [issue, "agent:A-1"]
    max_value_bytes: 2048
    quota_entries: 10
    quota_bytes: 0
  - plugin: acme.mail
    listen: 0.0.0.0:50051
    token_env: MAIL_TOKEN
    tls: { cert_file: /etc/tls.crt, key_file: tls.key, client_ca_file: ca.crt }
`;

test("every field is read, and paths are relative to the file", async () => {
  const at = (file: string) => join(directory, file);

  expect(await read(full, { MAIL_TOKEN: token })).toEqual([
    {
      plugin: "acme.notes",
      listen: { kind: "unix", path: "/run/ps/notes.sock" },
      tokens: { kind: "file", path: at("notes.token") },
      tls: undefined,
      permissions: {
        capabilities: ["plugin.state.read"],
        scopes: [
          { kind: "issue", id: undefined },
          { kind: "agent", id: "A-1" },
        ],
      },
      bounds: { maxValueBytes: 2048, quotaEntries: 10, quotaBytes: undefined },
    },
    {
      plugin: "acme.mail",
      listen: { kind: "tcp", host: "0.0.0.0", port: 50051 },
      tokens: { kind: "text", token, name: "MAIL_TOKEN" },
      tls: { certFile: "/etc/tls.crt", keyFile: at("tls.key"), clientCaFile: at("ca.crt") },
      permissions: undefined,
      bounds: {},
    },
  ]);
});

test("JSON is good as well", async () => {
  const json = JSON.stringify({ bindings: [{ plugin: "a", listen: "127.0.0.1:0" }] });

  expect(await read(json)).toHaveLength(1);
});

const one = (fields: string) => `bindings: [{ plugin: a, listen: "127.0.0.1:1", ${fields} }]`;

test.each([
  ["", "isn't an object with `bindings`, or is empty"],
  ["[]", "isn't an object with `bindings`, or is empty"],
  ["bindings: []", "bindings: needs a binding at least"],
  ["bindings: [{ plugin: a }]", "bindings[0].listen: "],
  ["bindings: [{ plugin: 'a b', listen: x }]", "bindings[0].plugin: must be a plugin's key"],
  ["bindings: [{ plugin: a, listen: nowhere }]", "bindings[0].listen: "],
  [one("tokens: x"), 'Unrecognized key: "tokens"'],
  [one("tls: { cert_file: x }"), "bindings[0].tls.key_file: "],
  [one("capabilities: []"), "bindings[0].capabilities: "],
  [one("capabilities: [plugin.state.all]"), "bindings[0].capabilities[0]: "],
  [one("scopes: [galaxy]"), "bindings[0].scopes[0]: must be KIND or KIND:ID"],
  [one("quota_entries: -1"), "bindings[0].quota_entries: "],
  [one("max_value_bytes: 12.5"), "bindings[0].max_value_bytes: "],
  [one("token_file: a, token_env: B"), "bindings[0]: token_file and token_env exclude each other"],
  [one("token_env: NOT_SET"), "the environment variable NOT_SET holds no good token"],
  ["bindings:\n  - plugin: a\n   listen: b", "line 3, column "],
  ["bindings: 1\nbindings: 2", "Map keys must be unique"],
  [
    "bindings: [{ plugin: a, listen: 'unix:/s' }, { plugin: b, listen: 'unix:/s' }]",
    "unix:/s was given twice",
  ],
  ["bindings: [{ plugin: a, listen: '0.0.0.0:1' }]", "can be reached from other machines"],
])("%j is refused, with the place", async (text, problem) => {
  const error = await refusal(text);

  expect(error).toMatchObject({ reason: "CONFIG_FILE_INVALID", exitCode: ExitCode.configuration });
  expect(error.message).toContain("bindings.yaml: ");
  expect(error.message).toContain(problem);
});

test("a token of the environment that is too short isn't shown", async () => {
  const { message } = await refusal(one("token_env: T"), { T: "hunter2" });

  expect(message).not.toContain("hunter2");
});

test("--insecure goes for the file too", async () => {
  expect(await read("bindings: [{ plugin: a, listen: '0.0.0.0:1' }]", {}, true)).toHaveLength(1);
});

test("a file that can't be read says why", async () => {
  const path = join(directory, "absent.yaml");

  await expect(readConfigFile(path, { environment: {}, insecure: false })).rejects.toMatchObject({
    reason: "FILE_UNREADABLE",
    message: expect.stringContaining("ENOENT"),
  });
});

test("the schema that editors get knows every field", () => {
  const text = JSON.stringify(configFileJsonSchema());

  for (const field of full.matchAll(/[a-z_]+(?=: )/g)) {
    expect(text).toContain(`"${field[0]}"`);
  }
});
