// @ts-check
// `npm run bench`: what calls cost, in one run, next to what they are compared with. Every figure is the
// median of some rounds, in which the measured things take turns: what disturbs the machine disturbs them
// alike. Judge by the ratios. About 5 minutes; `npm run bench -- get transact` measures only what those bars
// need. BENCH_ROUNDS and BENCH_SECONDS (of each measurement, after a second of warm-up) say how long.
// `npm run bench -- process`, `-- soak` and `-- host-upsert` measure other things: process.js, soak.js, host-upsert.js.

import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bars, measuresFor } from "./bars.js";
import { warmUp } from "./measures.js";
import { Servers } from "./servers.js";
import { report } from "./table.js";

/** @import { Results } from "./table.js" */

const rounds = Number(process.env["BENCH_ROUNDS"] ?? 3);
const seconds = Number(process.env["BENCH_SECONDS"] ?? 2);
const warmupSeconds = 1;

const words = process.argv.slice(2);
const programs = new Map([
  ["process", "./process.js"],
  ["soak", "./soak.js"],
  ["host-upsert", "./host-upsert.js"],
]);
const program = programs.get(words[0] ?? "");
if (program !== undefined && words.length === 1) {
  await import(program);
  process.exit();
}
const known = new Set(bars.map(({ word }) => word));
const unknown = words.find((word) => !known.has(word));
if (unknown !== undefined) {
  process.stderr.write(
    `${unknown} isn't measured; these are: ${[...known].join(" ")}; or, alone, ${[...programs.keys()].join(" or ")}\n`,
  );
  process.exit(64);
}
const chosen = bars.filter(({ word }) => words.length === 0 || words.includes(word));
const measures = measuresFor(chosen);

const dataDir = join(tmpdir(), `plugin-state-bench-${process.pid}`);
const servers = new Servers(dataDir);
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => void servers.stop());
try {
  await servers.start(new Set(measures.flatMap(({ needs }) => needs)));
  await warmUp(servers);
  /** @type {Results} */
  const results = new Map(measures.map((measure) => [measure, []]));
  for (let round = 1; round <= rounds; round++) {
    for (const [measure, figures] of results) {
      process.stderr.write(`round ${round}/${rounds}: ${measure.name}\n`);
      figures.push(await measure.run(servers, { seconds, warmupSeconds, round }));
      await servers.countConnections();
    }
  }
  const { mostConnections: connections, postgresVersion } = servers;
  process.stdout.write(report(chosen, results, { rounds, seconds, connections, postgresVersion }));
} finally {
  await servers.stop();
  await rm(dataDir, { recursive: true, force: true });
}
