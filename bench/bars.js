// @ts-check
// What the sidecar must reach: each figure, what it is compared with, and the bar for their ratio.
// The words are those `npm run bench -- <word>…` takes.

import { calls, echo, sql, withCommitDelay } from "./measures.js";

/** @import { Figures, Measure } from "./measures.js" */

/**
 * A number that some measures give.
 * @typedef {object} Quantity
 * @property {Measure[]} uses
 * @property {"/s" | "µs" | "ms"} unit
 * @property {(figuresOf: (measure: Measure) => Figures) => number} value
 */

/**
 * @typedef {object} Bar
 * @property {string} word
 * @property {string} name
 * @property {Quantity} figure
 * @property {Quantity} baseline
 * @property {number} [atLeast] the ratio; with neither this nor atMost the line is for information
 * @property {number} [atMost]
 */

const manyInFlight = 64;
const someInFlight = 8;

const echoMany = echo(manyInFlight);
const getMany = calls("Get", manyInFlight);
const setMany = calls("Set", manyInFlight);
const echoOne = echo(1);
const getOne = calls("Get", 1);
const setOne = calls("Set", 1);
const listOne = calls("List", 1);
const select100 = sql("select100", 1, 1);
const upsert100 = sql("upsert100", 1, 1);

/** @type {Bar[]} */
export const bars = [
  {
    word: "get",
    name: "Get, 64 in flight, calls; against the echo",
    figure: rate(getMany),
    baseline: rate(echoMany),
    atLeast: 0.85,
  },
  {
    word: "get",
    name: "Get, 64 in flight, server CPU per call; against the echo",
    figure: cpu(getMany),
    baseline: cpu(echoMany),
    atMost: 1.3,
  },
  {
    word: "set",
    name: "Set, 64 in flight, calls; against the echo",
    figure: rate(setMany),
    baseline: rate(echoMany),
    atLeast: 0.7,
  },
  {
    word: "coalescing",
    name: "Set, 64 in flight, calls; against --no-coalescing",
    figure: rate(setMany),
    baseline: rate(calls("Set", manyInFlight, "uncoalesced")),
    atLeast: 2.5,
  },
  {
    word: "one-caller",
    name: "Get, one caller, p50; against echo + 2 × point select through pg",
    figure: p50(getOne),
    baseline: echoAndTwice(sql("select", 1, 1)),
    atMost: 1,
  },
  {
    word: "one-caller",
    name: "Set, one caller, p50; against echo + 2 × upsert through pg",
    figure: p50(setOne),
    baseline: echoAndTwice(sql("upsert", 1, 1)),
    atMost: 1,
  },
  {
    word: "transact",
    name: "Transact of 100 Sets, one caller, keys; against a 100-row upsert on one connection",
    figure: rate(calls("Transact", 1)),
    baseline: rate(upsert100),
    atLeast: 0.6,
  },
  {
    word: "transact",
    name: "the same, 8 in flight, against the same",
    figure: rate(calls("Transact", someInFlight)),
    baseline: rate(upsert100),
  },
  {
    word: "batch-get",
    name: "BatchGet of 100, one caller, keys; against a 100-row select on one connection",
    figure: rate(calls("BatchGet", 1)),
    baseline: rate(select100),
    atLeast: 0.5,
  },
  {
    word: "batch-get",
    name: "the same, 8 in flight, against the same",
    figure: rate(calls("BatchGet", someInFlight)),
    baseline: rate(select100),
  },
  {
    word: "many-entries",
    name: "Get, one caller, p50 at 1,000,000 entries; against 10,000",
    figure: p50(calls("Get", 1, "many")),
    baseline: p50(getOne),
    atMost: 1.5,
  },
  {
    word: "many-entries",
    name: "Set, one caller, p50 at 1,000,000 entries; against 10,000",
    figure: p50(calls("Set", 1, "many")),
    baseline: p50(setOne),
    atMost: 1.5,
  },
  {
    word: "many-entries",
    name: "List of 100, one caller, p50 at 1,000,000 entries; against 10,000",
    figure: p50(calls("List", 1, "many")),
    baseline: p50(listOne),
    atMost: 1.5,
  },
  {
    word: "commit-delay",
    name: "Set, 64 in flight, calls, each commit 2 ms later; against without",
    figure: rate(withCommitDelay(setMany)),
    baseline: rate(setMany),
    atLeast: 0.6,
  },
  {
    word: "pg",
    name: "Get, 64 in flight, calls; against point selects through pg on 3 connections",
    figure: rate(getMany),
    baseline: rate(sql("select", manyInFlight, 3)),
  },
  {
    word: "pg",
    name: "Set, 64 in flight, calls; against upserts through pg on 3 connections",
    figure: rate(setMany),
    baseline: rate(sql("upsert", manyInFlight, 3)),
  },
];

/** Database connections that a sidecar may have at most. */
export const mostConnections = 3;

/**
 * What has to be measured, each once, in this order.
 * @param {Bar[]} chosen
 */
export function measuresFor(chosen) {
  return [...new Set(chosen.flatMap(({ figure, baseline }) => [...baseline.uses, ...figure.uses]))];
}

/** @param {Measure} measure @returns {Quantity} */
function rate(measure) {
  return { uses: [measure], unit: "/s", value: (figuresOf) => figuresOf(measure).perSecond };
}

/** @param {Measure} measure @returns {Quantity} */
function cpu(measure) {
  return { uses: [measure], unit: "µs", value: (figuresOf) => figuresOf(measure).serverUs };
}

/** @param {Measure} measure @returns {Quantity} */
function p50(measure) {
  return { uses: [measure], unit: "ms", value: (figuresOf) => figuresOf(measure).p50Us / 1000 };
}

/** What a call costs that asks the database something. @param {Measure} statement @returns {Quantity} */
function echoAndTwice(statement) {
  const uses = [echoOne, statement];
  const [call, asked] = [p50(echoOne), p50(statement)];
  return { uses, unit: "ms", value: (of) => call.value(of) + 2 * asked.value(of) };
}
