import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { ExitCode } from "../../src/start-error.ts";

const root = new URL("../../", import.meta.url);
const page = readFileSync(new URL("docs/hosting.md", root), "utf8");

/** Of one numbered line, or one paragraph: its number if it has one, its text, the tests it names. */
interface Line {
  readonly number: number | undefined;
  readonly text: string;
  readonly tests: readonly { readonly file: string; readonly name: string }[];
}

const lines = readLines(page);

describe("docs/hosting.md", () => {
  test("numbers its lines from 1 up, without a gap", () => {
    const numbers = lines.flatMap(({ number }) => number ?? []);
    expect(numbers).toEqual(numbers.map((_, index) => index + 1));
    expect(numbers.length).toBeGreaterThan(30);
  });

  test.each(lines.filter(({ text }) => isRequirement(text)).map((line) => [headOf(line), line]))(
    "says what must be in a numbered line that names its test: %s",
    (_head, { number, tests }) => {
      expect(number).toBeDefined();
      expect(tests).not.toEqual([]);
    },
  );

  test.each(lines.flatMap(({ tests }) => tests).map(({ file, name }) => [file, name]))(
    "names a test that exists: %s: %s",
    (file, name) => {
      expect(existsSync(new URL(file, root)), file).toBe(true);
      expect(readFileSync(new URL(file, root), "utf8")).toMatch(quoted(name));
    },
  );

  test("has a row for every exit code of serve", () => {
    const rows = [...page.matchAll(/^\| ([\d, ]+) \|/gm)].flatMap(([, codes]) =>
      codes!.split(", "),
    );
    const { unhealthy: _ofHealth, ...ofServe } = ExitCode;
    expect(rows.map(Number)).toEqual(Object.values(ofServe).sort((a, b) => a - b));
  });

  test("names no test that is skipped", () => {
    for (const { file, name } of lines.flatMap(({ tests }) => tests)) {
      const source = readFileSync(new URL(file, root), "utf8");
      const before = source.slice(0, source.search(quoted(name)));
      expect(before.slice(before.lastIndexOf("test"))).not.toMatch(/^test\.(skip|todo)/);
    }
  });
});

/** The words are explained once, before the first section. */
function isRequirement(text: string): boolean {
  return /\bMUST\b/.test(text) && !text.includes("RFC 2119");
}

/** Blocks of text; those of code, and blank lines inside of a numbered line, belong to it. */
function readLines(text: string): Line[] {
  const prose = text.replace(/^ *```.*?^ *```$/gms, "");
  return prose.split(/\n(?=\d+\. |#|\n(?! ))/).map((block) => {
    const joined = block.trim().replace(/\s+/g, " ");
    const tests = [...joined.matchAll(/\((test\/[\w./-]+): "([^"]+)"\)/g)].map(
      ([, file, name]) => ({ file: file!, name: name! }),
    );
    const [, number] = /^(\d+)\. /.exec(joined) ?? [];
    return { number: number === undefined ? undefined : Number(number), text: joined, tests };
  });
}

function headOf({ number, text }: Line): string {
  return `${number ?? "?"}: ${text.slice(0, 60)}`;
}

/** A test's name as it stands in its source. */
function quoted(name: string): RegExp {
  const escaped = name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`["'\`]${escaped}["'\`]`);
}
