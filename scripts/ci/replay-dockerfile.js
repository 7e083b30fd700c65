// Does what the Dockerfile of the current directory says, without Docker:
//   node scripts/ci/replay-dockerfile.js DIRECTORY
//
// Each stage gets a directory for its root, and DIRECTORY is the last one's. COPY takes from the
// files that .dockerignore lets through, or from an earlier stage. RUN is run in the stage's WORKDIR,
// but not in the last stage, where it prepares a system that isn't this one. FROM's images, and what
// only describes the image, are ignored. It knows no more of Dockerfiles than ours needs.
import { execSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";

const descriptions = new Set(
  "LABEL ENV EXPOSE VOLUME USER STOPSIGNAL HEALTHCHECK ENTRYPOINT CMD".split(" "),
);

const [target = ""] = process.argv.slice(2);
const scratch = mkdtempSync(join(tmpdir(), "replay-"));
const context = join(scratch, "context");
fillContext();

const instructions = readInstructions();
const lastFrom = instructions.findLastIndex(({ word }) => word === "FROM");
/** The roots of stages by name. */
const stages = new Map();
let root = "";
let directory = "/";
for (const [index, { word, rest }] of instructions.entries()) {
  const isLast = index >= lastFrom;
  if (word === "FROM") {
    const name = / AS (\S+)$/i.exec(rest)?.[1] ?? "";
    root = isLast ? target : join(scratch, `stage-${index}`);
    stages.set(name, root);
    directory = "/";
  } else if (word === "WORKDIR") {
    directory = rest;
    mkdirSync(join(root, directory), { recursive: true });
  } else if (word === "COPY") {
    copy(rest.split(/\s+/));
  } else if (word === "RUN" && !isLast) {
    console.log(`RUN ${rest}`);
    execSync(rest, { cwd: join(root, directory), stdio: ["ignore", "inherit", "inherit"] });
  } else if (word !== "RUN" && !descriptions.has(word)) {
    throw new Error(`don't know ${word}`);
  }
}

/** One instruction a logical line, comments left out. */
function readInstructions() {
  const lines = readFileSync("Dockerfile", "utf8").split("\n");
  const text = lines.filter((line) => !/^\s*(#|$)/.test(line)).join("\n");
  return text
    .replaceAll(/\\\n\s*/g, "")
    .split("\n")
    .map((line) => ({ word: line.split(" ")[0] ?? "", rest: line.replace(/^\S+\s+/, "") }));
}

/** Copies the repository's files that .dockerignore lets through. */
function fillContext() {
  const rules = readFileSync(".dockerignore", "utf8").split("\n").filter(isRule);
  const files = execSync("git ls-files -z", { encoding: "utf8" }).split("\0").filter(Boolean);
  for (const file of files.filter((name) => isLetThrough(name, rules))) {
    console.log(`context: ${file}`);
    cpSync(file, join(context, file), { recursive: true });
  }
}

/** The last rule that fits decides. A rule is `*`, or a path that stands for all below it. */
function isLetThrough(file, rules) {
  const fits = (rule) => {
    const path = rule.replace(/^!/, "");
    if (/[*?[]/.test(path) && path !== "*") throw new Error(`don't know the rule ${rule}`);
    return path === "*" || file === path || file.startsWith(`${path}/`);
  };
  return rules.findLast(fits)?.startsWith("!") ?? true;
}

function isRule(line) {
  return line !== "" && !line.startsWith("#");
}

function copy(words) {
  const flags = words.filter((word) => word.startsWith("--"));
  const paths = words.filter((word) => !word.startsWith("--"));
  const from = flags.find((flag) => flag.startsWith("--from="))?.slice("--from=".length);
  const source = from === undefined ? context : stages.get(from);
  const to = paths.pop() ?? "";
  for (const path of paths) {
    // Docker copies a directory's content, and a file under its own name.
    const isDirectory = statSync(join(source, path)).isDirectory();
    const at = join(root, to.startsWith("/") ? "" : directory, to);
    const into = !isDirectory && to.endsWith("/") ? join(at, basename(path)) : at;
    mkdirSync(dirname(into), { recursive: true });
    cpSync(join(source, path), into, { recursive: true, verbatimSymlinks: true });
  }
}
