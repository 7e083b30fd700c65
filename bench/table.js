// @ts-check
// The report as text: the bars, and below them what was measured.

import { cpus } from "node:os";
import { mostConnections } from "./bars.js";

/** @import { Bar, Quantity } from "./bars.js" */
/** @import { Figures, Measure } from "./measures.js" */

/** A run in which others used more isn't to be judged by. */
const disturbedCores = 0.2;

/** What each measure came to, round by round. @typedef {Map<Measure, Figures[]>} Results */

/**
 * @param {Bar[]} bars
 * @param {Results} results
 * @param {{ rounds: number, seconds: number, connections: number, postgresVersion: string }} run
 */
export function report(bars, results, run) {
  const medians = new Map([...results].map(([measure, rounds]) => [measure, medianOf(rounds)]));
  /** @param {Measure} measure */
  const figuresOf = (measure) => {
    const figures = medians.get(measure);
    if (figures === undefined) throw new Error(`not measured: ${measure.name}`);
    return figures;
  };
  const lines = bars.map((bar) => {
    const [figure, baseline] = [bar.figure.value(figuresOf), bar.baseline.value(figuresOf)];
    return barLine(bar, figure, baseline);
  });
  lines.push(connectionsLine(run.connections));
  return [
    ...aboutLines(run, results),
    "",
    "| measure | figure | baseline | ratio | bar | reached |",
    "|---|---|---|---|---|---|",
    ...lines,
    "",
    "| measured | per second | p50 ms | p99 ms | CPU µs/call | load generator, cores | others, cores |",
    "|---|---|---|---|---|---|---|",
    ...[...medians].map(([{ name }, figures]) => figuresLine(name, figures)),
    "",
  ].join("\n");
}

/**
 * @param {{ rounds: number, seconds: number, postgresVersion: string }} run
 * @param {Results} results
 */
function aboutLines({ rounds, seconds, postgresVersion }, results) {
  const cores = cpus();
  const others = [...results].flatMap(([{ name }, all]) => all.map((f) => ({ name, f })));
  const most = others.reduce((a, b) => (b.f.others > a.f.others ? b : a));
  const usual = median(others.map(({ f }) => f.others));
  /** @param {number} used */
  const share = (used) => `${((100 * used) / cores.length).toFixed(0)} %`;
  return [
    `Node ${process.version}, PostgreSQL ${postgresVersion}, ${cores.length} × ${cores[0]?.model}; ${new Date().toISOString()}.`,
    `Medians of ${rounds} rounds of ${seconds} s each; "per second" is keys where a call has 100.`,
    `Others used ${share(usual)} of the machine (median), at most ${share(most.f.others)} (${most.name})${usual > disturbedCores ? ": disturbed, figures to be measured again" : ""}.`,
  ];
}

/** @param {Bar} bar @param {number} figure @param {number} baseline */
function barLine({ name, atLeast, atMost, ...quantities }, figure, baseline) {
  const ratio = figure / baseline;
  const bar = barText(atLeast, atMost);
  const isReached = ratio >= (atLeast ?? 0) && ratio <= (atMost ?? Number.POSITIVE_INFINITY);
  const reached = bar === "" ? "for information" : yesOrNo(isReached);
  const shown = [text(quantities.figure, figure), text(quantities.baseline, baseline)];
  return `| ${[name, ...shown, ratio.toFixed(2), bar, reached].join(" | ")} |`;
}

/** @param {number} count */
function connectionsLine(count) {
  const bar = barText(undefined, mostConnections);
  return `| database connections of a sidecar, at most | ${count} | | | ${bar} | ${yesOrNo(count <= mostConnections)} |`;
}

/** @param {number | undefined} atLeast @param {number | undefined} atMost */
function barText(atLeast, atMost) {
  if (atLeast !== undefined) return `≥ ${atLeast}`;
  return atMost === undefined ? "" : `≤ ${atMost}`;
}

/** @param {boolean} is */
const yesOrNo = (is) => (is ? "yes" : "NO");

/** @param {Quantity} quantity @param {number} value */
function text({ unit }, value) {
  const digits = { "/s": 0, µs: 1, ms: 3 }[unit];
  return unit === "/s" ? `${value.toFixed(digits)}/s` : `${value.toFixed(digits)} ${unit}`;
}

/** @param {string} name @param {Figures} figures */
function figuresLine(name, { perSecond, p50Us, p99Us, serverUs, clientShare, others }) {
  const client = Number.isNaN(clientShare) ? "" : clientShare.toFixed(2);
  const ms = [p50Us, p99Us].map((us) => (us / 1000).toFixed(2));
  return `| ${[name, perSecond.toFixed(0), ...ms, serverUs.toFixed(0), client, others.toFixed(2)].join(" | ")} |`;
}

/** @param {Figures[]} rounds @returns {Figures} */
function medianOf(rounds) {
  return {
    perSecond: median(rounds.map((f) => f.perSecond)),
    p50Us: median(rounds.map((f) => f.p50Us)),
    p99Us: median(rounds.map((f) => f.p99Us)),
    serverUs: median(rounds.map((f) => f.serverUs)),
    clientShare: median(rounds.map((f) => f.clientShare)),
    others: median(rounds.map((f) => f.others)),
  };
}

/** @param {number[]} values */
function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
