import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { readServeConfig, redactConfig, type ServeConfig } from "../../src/config/config.ts";
import { defaultDataDir } from "../../src/embedded/data-dir.ts";
import { ExitCode, StartError } from "../../src/start-error.ts";

const url = "postgres://worker:hunter2@db.example:5432/app";

function read(flags: Record<string, string[]> = {}, environment: Record<string, string> = {}) {
  return readServeConfig(flags, environment);
}

function config(
  flags?: Record<string, string[]>,
  environment?: Record<string, string>,
): ServeConfig {
  return read(flags, environment).config;
}

function refusal(
  flags: Record<string, string[]>,
  environment?: Record<string, string>,
): StartError {
  try {
    read(flags, environment);
  } catch (error) {
    if (error instanceof StartError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

function tempFile(content: string): string {
  const path = join(mkdtempSync(join(tmpdir(), "plugin-state-")), "url");
  writeFileSync(path, content);
  return path;
}

test("without anything it is the embedded database and the demo plugin on the default address", () => {
  expect(read()).toEqual({
    config: {
      database: { kind: "embedded", dataDir: defaultDataDir() },
      stateSchema: "plugin_sidecar",
      migrate: true,
      bindings: [{ plugin: "demo", listen: { kind: "tcp", host: "127.0.0.1", port: 50051 } }],
      insecure: false,
      poolSize: 3,
      databaseTimeoutMs: 10_000,
      maxConnections: 256,
      maxCallMs: 300_000,
      bounds: {
        maxValueBytes: 4 * 1024 * 1024,
        rememberRequestsMs: 600_000,
        quotaEntries: undefined,
        quotaBytes: undefined,
      },
      coalescing: true,
      sweepIntervalMs: 2_000,
      drainTimeoutMs: 8_000,
      failFast: false,
      exitWithParent: false,
      acceptWhenReady: false,
      logLevel: "info",
      slowCallMs: 1_000,
    },
    warnings: [],
  });
});

test("a configuration is frozen through and through", () => {
  const frozen = config();

  expect(Object.isFrozen(frozen)).toBe(true);
  expect(Object.isFrozen(frozen.database)).toBe(true);
  expect(Object.isFrozen(frozen.bindings[0]?.listen)).toBe(true);
});

describe("precedence", () => {
  test("a flag wins over the environment, the environment over the default", () => {
    const environment = {
      PLUGIN_STATE_SLOW_CALL_MS: "5",
      PLUGIN_STATE_DRAIN_TIMEOUT_MS: "6",
    };

    const read = config({ slowCallMs: ["7"] }, environment);

    expect(read).toMatchObject({ slowCallMs: 7, drainTimeoutMs: 6, databaseTimeoutMs: 10_000 });
  });

  test("an empty variable counts as unset", () => {
    const environment = { DATABASE_URL: "", PLUGIN_STATE_PLUGIN: "", PLUGIN_STATE_FAIL_FAST: "" };

    expect(config({}, environment)).toEqual(config());
  });

  test.each([
    ["true", true],
    ["1", true],
    ["TRUE", true],
    ["false", false],
    ["0", false],
  ])("a switch in the environment may be %s", (text, failFast) => {
    expect(config({}, { PLUGIN_STATE_FAIL_FAST: text }).failFast).toBe(failFast);
  });

  test("--no-migrate turns migrations off, from the environment too", () => {
    expect(config({ noMigrate: ["true"] }).migrate).toBe(false);
    expect(config({}, { PLUGIN_STATE_NO_MIGRATE: "true" }).migrate).toBe(false);
  });

  test("--no-coalescing turns gathering off, from the environment too", () => {
    expect(config({ noCoalescing: ["true"] }).coalescing).toBe(false);
    expect(config({}, { PLUGIN_STATE_NO_COALESCING: "1" }).coalescing).toBe(false);
  });
});

describe("values", () => {
  test.each([
    ["maxValueBytes", 1024, 64 * 1024 * 1024],
    ["databaseConnections", 1, 10],
    ["databaseTimeoutMs", 100, 600_000],
    ["quotaEntries", 0, 999_999_999_999_999],
    ["quotaBytes", 0, 999_999_999_999_999],
    ["requestIdSeconds", 1, 86_400],
    ["sweepIntervalMs", 100, 3_600_000],
    ["drainTimeoutMs", 0, 600_000],
    ["slowCallMs", 0, 600_000],
    ["maxConnections", 1, 100_000],
    ["maxCallMs", 1_000, 3_600_000],
  ])("%s accepts its bounds and nothing beyond", (option, min, max) => {
    expect(() => config({ [option]: [String(min)] })).not.toThrow();
    expect(() => config({ [option]: [String(max)] })).not.toThrow();
    expect(refusal({ [option]: [String(min - 1)] }).exitCode).toBe(ExitCode.usage);
    expect(refusal({ [option]: [String(max + 1)] }).message).toContain(`from ${min} to ${max}`);
  });

  test.each(["", " 5", "5.0", "5e3", "0x10", "five", "-0", "constructor"])(
    "%j is no number",
    (text) => {
      expect(refusal({ slowCallMs: [text] }).message).toContain(JSON.stringify(text));
    },
  );

  test.each(["yes", "constructor", "2"])("%j is no switch", (text) => {
    const { message } = refusal({}, { PLUGIN_STATE_INSECURE: text });

    expect(message).toBe(`PLUGIN_STATE_INSECURE must be true, 1, false or 0, not "${text}"`);
  });

  test("quotas, and how long request ids are remembered, become bounds of the state", () => {
    const environment = { PLUGIN_STATE_QUOTA_BYTES: "2048", PLUGIN_STATE_REQUEST_ID_SECONDS: "5" };

    expect(config({ quotaEntries: ["7"] }, environment).bounds).toEqual({
      maxValueBytes: 4 * 1024 * 1024,
      rememberRequestsMs: 5_000,
      quotaEntries: 7,
      quotaBytes: 2048,
    });
  });

  test("a quota of 0 is none", () => {
    const { bounds } = config({ quotaEntries: ["0"] }, { PLUGIN_STATE_QUOTA_BYTES: "0" });

    expect(bounds).toMatchObject({ quotaEntries: undefined, quotaBytes: undefined });
  });

  test("a wrong value is named as it was given, by its flag or its variable", () => {
    expect(refusal({ logLevel: ["loud"] }).message).toMatch(/^--log-level must be one of trace, /);
    expect(refusal({}, { PLUGIN_STATE_LOG_LEVEL: "loud" }).message).toMatch(
      /^PLUGIN_STATE_LOG_LEVEL must be one of trace, /,
    );
  });

  test.each(["", "1st", "a-b", 'a"b', "pg_catalog", "a".repeat(64)])(
    "%j is no schema to keep state in",
    (name) => {
      expect(refusal({ stateSchema: [name] }).message).toContain("--state-schema must be");
    },
  );

  test("a flag that swallowed the next one is told so", () => {
    const { message } = refusal({ dataDir: ["--insecure"] });

    expect(message).toBe("--data-dir needs a value, but --insecure follows it");
  });
});

describe("which database", () => {
  const plugin = ["acme.notes"];

  test("DATABASE_URL, and a migration URL beside it", () => {
    const environment = {
      DATABASE_URL: url,
      PLUGIN_STATE_MIGRATION_DATABASE_URL: "postgresql://owner@db.example/app",
    };

    expect(config({ plugin }, environment).database).toEqual({
      kind: "url",
      url,
      migrationUrl: "postgresql://owner@db.example/app",
    });
  });

  test("a URL in a file, without the line break at its end", () => {
    const path = tempFile(`${url}\n`);

    expect(config({ plugin, databaseUrlFile: [path] }).database).toEqual({ kind: "url", url });
    expect(config({ plugin }, { PLUGIN_STATE_DATABASE_URL_FILE: path }).database).toEqual({
      kind: "url",
      url,
    });
  });

  test("a URL with a user, and a directory of sockets for a host", () => {
    const local = "postgresql://worker@/app?host=/run/postgresql";

    expect(config({ plugin, databaseUrl: [local] }).database).toEqual({ kind: "url", url: local });
  });

  test("a file that can't be read names itself and exits with 78", () => {
    const failure = refusal({ plugin, databaseUrlFile: ["/nowhere/url"] });

    expect(failure).toMatchObject({
      exitCode: ExitCode.configuration,
      message: "--database-url-file: can't read /nowhere/url (ENOENT)",
    });
  });

  test("a file without a URL is refused without its content", () => {
    const { message } = refusal({ plugin, databaseUrlFile: [tempFile("hunter2\n")] });

    expect(message).toContain("must be a PostgreSQL URL");
    expect(message).not.toContain("hunter2");
  });

  test("a flag decides over every variable, and says which it ignores", () => {
    const environment = {
      DATABASE_URL: url,
      PLUGIN_STATE_MIGRATION_DATABASE_URL: "postgres://owner@db.example/app",
    };

    const { config, warnings } = read({ dataDir: ["/data"] }, environment);

    expect(config.database).toEqual({ kind: "embedded", dataDir: "/data" });
    expect(warnings).toEqual([
      "DATABASE_URL is ignored: --data-dir was given",
      "PLUGIN_STATE_MIGRATION_DATABASE_URL is ignored: --data-dir was given",
    ]);
  });

  test("a migration URL left in the environment never belongs to the database of a flag", () => {
    const environment = { PLUGIN_STATE_MIGRATION_DATABASE_URL: "postgres://owner@production/app" };

    const { config, warnings } = read(
      { plugin, databaseUrl: ["postgres://me@test/app"] },
      environment,
    );

    expect(config.database).toEqual({ kind: "url", url: "postgres://me@test/app" });
    expect(warnings).toHaveLength(1);
  });

  test("two databases on the same level are refused", () => {
    const environment = { DATABASE_URL: url, PLUGIN_STATE_DATA_DIR: "/data" };

    expect(refusal({ databaseUrl: [url], dataDir: ["/data"] }).message).toBe(
      "--database-url and --data-dir each name a database; give one of them",
    );
    expect(refusal({}, environment).message).toBe(
      "DATABASE_URL and PLUGIN_STATE_DATA_DIR each name a database; give one of them",
    );
  });

  test("statements have names unless a flag or the environment says otherwise", () => {
    const database = { kind: "url", url, namedStatements: false };
    expect(config({ plugin, databaseUrl: [url], noPreparedStatements: ["true"] }).database).toEqual(
      database,
    );
    const environment = { DATABASE_URL: url, PLUGIN_STATE_NO_PREPARED_STATEMENTS: "1" };
    expect(config({ plugin }, environment).database).toEqual(database);
    const embedded = { kind: "embedded", dataDir: "/data", namedStatements: false };
    expect(config({ dataDir: ["/data"], noPreparedStatements: ["true"] }).database).toEqual(
      embedded,
    );
  });

  test("a migration URL needs a given database", () => {
    expect(refusal({ migrationDatabaseUrl: [url] }).message).toContain(
      "--migration-database-url needs --database-url",
    );
    expect(refusal({ migrationDatabaseUrlFile: [tempFile(url)] }).message).toContain(
      "--migration-database-url-file needs --database-url",
    );
  });

  test("a migration URL in a file, by a flag or the environment", () => {
    const migrationUrl = "postgres://owner:secret@db.example/app";
    const path = tempFile(`${migrationUrl}\n`);
    const database = { kind: "url", url, migrationUrl };

    const byFlag = config({ plugin, databaseUrl: [url], migrationDatabaseUrlFile: [path] });
    expect(byFlag.database).toEqual(database);
    const environment = { DATABASE_URL: url, PLUGIN_STATE_MIGRATION_DATABASE_URL_FILE: path };
    expect(config({ plugin }, environment).database).toEqual(database);
  });

  test("a file for the migration URL that can't be used names itself, and not its content", () => {
    const absent = { plugin, databaseUrl: [url], migrationDatabaseUrlFile: ["/nowhere/url"] };
    expect(refusal(absent)).toMatchObject({
      exitCode: ExitCode.configuration,
      message: "--migration-database-url-file: can't read /nowhere/url (ENOENT)",
    });
    const environment = {
      DATABASE_URL: url,
      PLUGIN_STATE_MIGRATION_DATABASE_URL_FILE: tempFile("hunter2"),
    };
    const { message } = refusal({ plugin }, environment);
    expect(message).toContain("PLUGIN_STATE_MIGRATION_DATABASE_URL_FILE: the content of");
    expect(message).not.toContain("hunter2");
  });

  test("two migration URLs on the same level are refused; a flag's is taken before a variable's", () => {
    const path = tempFile("postgres://owner@db.example/app");
    const both = { migrationDatabaseUrl: [url], migrationDatabaseUrlFile: [path] };
    expect(refusal({ plugin, databaseUrl: [url], ...both }).message).toBe(
      "--migration-database-url and --migration-database-url-file each name a database; give one of them",
    );

    const { config, warnings } = read(
      { plugin, migrationDatabaseUrlFile: [path] },
      { DATABASE_URL: url, PLUGIN_STATE_MIGRATION_DATABASE_URL: "postgres://another@h/app" },
    );

    expect(config.database).toMatchObject({ migrationUrl: "postgres://owner@db.example/app" });
    expect(warnings).toEqual([
      "PLUGIN_STATE_MIGRATION_DATABASE_URL is ignored: --migration-database-url-file was given",
    ]);
  });

  test("a file with a migration URL that was left in the environment isn't even read for a flag's database", () => {
    const environment = { PLUGIN_STATE_MIGRATION_DATABASE_URL_FILE: "/nowhere/url" };

    const { config, warnings } = read({ plugin, databaseUrl: [url] }, environment);

    expect(config.database).toEqual({ kind: "url", url });
    expect(warnings).toContain(
      "PLUGIN_STATE_MIGRATION_DATABASE_URL_FILE is ignored: --database-url was given",
    );
  });

  test.each([
    "mysql://u:hunter2@h/db",
    "u:hunter2@h/db",
    "postgres://",
    "postgres://u:hunter2@h:port/db",
  ])("%s is refused, and not repeated", (text) => {
    for (const failure of [
      refusal({ databaseUrl: [text] }),
      refusal({}, { DATABASE_URL: text }),
      refusal({}, { DATABASE_URL: url, PLUGIN_STATE_MIGRATION_DATABASE_URL: text }),
    ]) {
      expect(failure.exitCode).toBe(ExitCode.usage);
      expect(`${failure.message} ${failure.hint} ${failure.cause}`).not.toContain("hunter2");
    }
  });

  test.each([
    "postgresql:///app?host=/run/postgresql",
    "postgres://u@%2Frun%2Fpostgresql/app",
    "postgres://u:p%40ss@[::1]:5432/app?sslmode=require",
  ])("%s is a database", (text) => {
    expect(config({ plugin, databaseUrl: [text] }).database).toEqual({ kind: "url", url: text });
  });

  test("a password on the command line is warned of, one in the environment isn't", () => {
    expect(read({ plugin, databaseUrl: [url] }).warnings).toEqual([
      "the password in --database-url is visible to everybody on this machine (ps); use DATABASE_URL",
    ]);
    expect(read({ plugin }, { DATABASE_URL: url }).warnings).toEqual([]);
  });
});

describe("bindings", () => {
  test("plugins and addresses pair up in their order", () => {
    const flags = { plugin: ["a", "b"], listen: ["unix:/run/a.sock", "[::1]:0"] };

    expect(config(flags).bindings).toEqual([
      { plugin: "a", listen: { kind: "unix", path: "/run/a.sock" } },
      { plugin: "b", listen: { kind: "tcp", host: "::1", port: 0 } },
    ]);
  });

  test("in the environment they are separated by commas", () => {
    const environment = {
      PLUGIN_STATE_PLUGIN: "a, b",
      PLUGIN_STATE_LISTEN: "127.0.0.1:0,127.0.0.1:0",
    };

    expect(config({}, environment).bindings.map(({ plugin }) => plugin)).toEqual(["a", "b"]);
  });

  test("flags replace the environment's list, not add to it", () => {
    expect(config({ plugin: ["b"] }, { PLUGIN_STATE_PLUGIN: "a" }).bindings).toHaveLength(1);
  });

  test.each([
    [["a", "b"], [], "2 plugins, 0 listen addresses"],
    [["a", "b"], ["127.0.0.1:1"], "2 plugins, 1 listen address"],
    [["a"], ["127.0.0.1:1", "127.0.0.1:2"], "1 plugin, 2 listen addresses"],
    [[], ["127.0.0.1:1", "127.0.0.1:2"], "1 plugin, 2 listen addresses"],
  ])("plugins %j on %j are refused", (plugin, listen, counts) => {
    const flags = { ...(plugin.length > 0 && { plugin }), ...(listen.length > 0 && { listen }) };

    expect(refusal(flags).message).toBe(`each --plugin needs its own --listen: ${counts}`);
  });

  test("a given database demands a plugin, and says how to find or add one", () => {
    const failure = refusal({}, { DATABASE_URL: url });

    expect(failure.message).toContain("--plugin is required");
    expect(failure.hint).toContain("plugin-state plugin list");
  });

  test.each(["", "a b", "a,b", "-x", "a\u0000", "x".repeat(257)])("%j is no plugin", (plugin) => {
    expect(refusal({ plugin: [plugin] }).message).toContain("--plugin must be");
  });

  test("an address that can't be parsed says what one looks like", () => {
    expect(refusal({ healthListen: ["50051"] }).message).toContain('--health-listen: "50051"');
    const { message, exitCode } = refusal({ listen: ["50051"] });

    expect(message).toContain('--listen: "50051"');
    expect(exitCode).toBe(ExitCode.usage);
  });

  test("an address given twice is refused, unless the system chooses the port", () => {
    const plugin = ["a", "b"];

    expect(refusal({ plugin, listen: ["127.0.0.1:1", "127.0.0.1:1"] }).message).toBe(
      "--listen 127.0.0.1:1 was given twice",
    );
    expect(config({ plugin, listen: ["127.0.0.1:0", "127.0.0.1:0"] }).bindings).toHaveLength(2);
  });

  test.each(["0.0.0.0:50051", "[::]:50051", "192.0.2.1:50051", "sidecar.example:50051"])(
    "%s is refused in the clear, unless --insecure",
    (address) => {
      const failure = refusal({ listen: [address] });

      expect(failure.message).toContain("can be reached from other machines");
      expect(failure.hint).toContain("--insecure");
      expect(config({ listen: [address], insecure: ["true"] })).toMatchObject({ insecure: true });
    },
  );

  test("TLS without a token or client certificates doesn't guard an address that others reach", () => {
    const tls = { tlsCertFile: ["/c"], tlsKeyFile: ["/k"], listen: ["0.0.0.0:1"] };

    expect(refusal(tls).hint).toContain("demand a token or client certificates");
    expect(() => config({ ...tls, tokenFile: ["/t"] })).not.toThrow();
    expect(() => config({ ...tls, tlsClientCaFile: ["/ca"] })).not.toThrow();
  });

  test("a certificate without its key, or a client CA alone, is refused", () => {
    expect(refusal({ tlsCertFile: ["/c"] }).message).toContain("both --tls-cert-file and");
    expect(refusal({ tlsClientCaFile: ["/ca"] }).message).toContain("both --tls-cert-file and");
  });

  test("one token isn't shared by plugins", () => {
    const listen = ["127.0.0.1:0", "127.0.0.1:0"];
    const failure = refusal({ plugin: ["a", "b"], listen, tokenFile: ["/t"] });

    expect(failure.hint).toContain("--config");
  });

  test("a token that can be guessed is refused without being shown", () => {
    const { message } = refusal({ token: ["too-short"] });

    expect(message).toContain("--token must be 16 to 4096 characters");
    expect(message).not.toContain("too-short");
  });

  test("capabilities and scopes are what the binding allows", () => {
    const given = { capability: ["plugin.state.read"], scope: ["issue", "agent:A-1"] };

    expect(config(given).bindings[0]?.permissions).toEqual({
      capabilities: ["plugin.state.read"],
      scopes: [
        { kind: "issue", id: undefined },
        { kind: "agent", id: "A-1" },
      ],
    });
    expect(refusal({ capability: ["plugin.state.admin"] }).message).toContain(
      "one of plugin.state",
    );
    expect(refusal({ scope: ["instance:x"] }).message).toContain("instance takes no ID");
    expect(refusal({ scope: ["galaxy"] }).message).toContain("must be KIND or KIND:ID");
  });

  test("--config excludes what the file says", () => {
    expect(refusal({ config: ["f"], plugin: ["a"] }).message).toContain("--plugin and --config");
    expect(refusal({ config: ["f"], scope: ["issue"] }).message).toContain("--scope and --config");
    expect(config({ config: ["f"] })).toMatchObject({ configFile: "f", bindings: [] });
  });

  test.each(["127.0.0.1:0", "127.8.8.8:1", "[::1]:1", "localhost:1", "unix:/a", "fd:3"])(
    "%s needs no --insecure",
    (address) => {
      expect(() => config({ listen: [address] })).not.toThrow();
    },
  );
});

describe("misspelt variables", () => {
  test.each([
    ["PLUGIN_STATE_LISTN", "PLUGIN_STATE_LISTEN"],
    ["PLUGIN_STATE_SCHEMA", "PLUGIN_STATE_STATE_SCHEMA"],
    ["PLUGIN_STATE_DATABASE_URL", "DATABASE_URL"],
    ["PLUGIN_STATE_MAX_VALUE", "PLUGIN_STATE_MAX_VALUE_BYTES"],
  ])("%s is reported, with what was meant: %s", (name, meant) => {
    expect(read({}, { [name]: "x" }).warnings).toEqual([
      `${name} is no environment variable of this release; did you mean ${meant}?`,
    ]);
  });

  test("one that is like none of ours is reported alone, and others' are none of our business", () => {
    expect(read({}, { PLUGIN_STATE_QQQ: "x", DATABASE_URLS: "x" }).warnings).toEqual([
      "PLUGIN_STATE_QQQ is no environment variable of this release",
    ]);
  });
});

test("what is logged of a configuration holds no password", () => {
  const environment = {
    DATABASE_URL: url,
    PLUGIN_STATE_MIGRATION_DATABASE_URL: "postgres://owner:hunter2@h/app?password=hunter2&x=1",
    PLUGIN_STATE_PLUGIN: "a",
  };

  const shown = JSON.stringify(redactConfig(config({}, environment)));

  expect(shown).not.toContain("hunter2");
  expect(shown).toContain("postgres://worker:***@db.example:5432/app");
});
