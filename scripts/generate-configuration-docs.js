// Writes docs/configuration.md from the tables that the program itself reads, so run `npm run build` first.
//   node scripts/generate-configuration-docs.js          writes the page
//   node scripts/generate-configuration-docs.js --check  fails when the page isn't what it would write
import { readFileSync, writeFileSync } from "node:fs";

const page = new URL("../docs/configuration.md", import.meta.url);
const { configurationPage } = await import("../dist/command/configuration-page.js");

const wanted = configurationPage();
if (!process.argv.includes("--check")) {
  writeFileSync(page, wanted);
} else if (readFileSync(page, "utf8") !== wanted) {
  console.error(
    "docs/configuration.md is stale: run `npm run build && node scripts/generate-configuration-docs.js`",
  );
  process.exitCode = 1;
}
