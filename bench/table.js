// @ts-check
// The report as text.

/** @import { Figures } from "./run.js" */

/**
 * @param {{ name: string, figures: Figures[] }[]} lines
 * @param {{ rounds: number, seconds: number, connections: number }} run
 */
export function table(lines, { rounds, seconds, connections }) {
  const rows = lines.map(({ name, figures }) => ({
    name,
    perSecond: median(figures.map((f) => f.perSecond)),
    p50: median(figures.map((f) => f.p50Us)),
    p99: median(figures.map((f) => f.p99Us)),
    cpu: median(figures.map((f) => f.serverUs)),
    client: median(figures.map((f) => f.clientShare)),
  }));
  /** @param {string} name */
  const echoOf = (name) => rows.find((row) => row.name === `echo, ${name.split(", ")[1]}`);
  const head =
    "| measure | per second | × echo | p50 ms | p99 ms | CPU µs/call | load generator's share of a core |";
  const body = rows.map(
    (row) =>
      `| ${row.name} | ${row.perSecond.toFixed(0)} | ${ratio(row.perSecond, echoOf(row.name)?.perSecond)} | ${ms(row.p50)} | ${ms(row.p99)} | ${row.cpu.toFixed(0)} | ${Number.isNaN(row.client) ? "" : row.client.toFixed(2)} |`,
  );
  const about = `Node ${process.version}, median of ${rounds} rounds of ${seconds} s each; database connections of the sidecar: ${connections}.`;
  return [about, "", head, "|---|---|---|---|---|---|---|", ...body, ""].join("\n");
}

/** @param {number} us */
const ms = (us) => (us / 1000).toFixed(2);

/** @param {number} value @param {number | undefined} base */
const ratio = (value, base) => (base ? (value / base).toFixed(2) : "");

/** @param {number[]} values */
function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
