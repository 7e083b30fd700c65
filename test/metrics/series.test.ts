import fc from "fast-check";
import { Registry, Histogram as TheirHistogram } from "prom-client";
import { expect, test } from "vitest";
import { Counter, Histogram, Reading } from "../../src/metrics/series.ts";
import { parseScrape } from "../support/metrics.ts";

/** What prom-client writes of one metric. */
async function written(metric: unknown): Promise<string> {
  const registry = new Registry();
  registry.registerMetric(metric as Parameters<Registry["registerMetric"]>[0]);
  return await registry.metrics();
}

test("a histogram's buckets are cumulative, and an observation on a bound is in its bucket", async () => {
  const histogram = new Histogram({
    name: "t_seconds",
    help: "h",
    labelNames: ["a"],
    bounds: [1, 2],
  });
  for (const value of [0, 1, 1.5, 2, 3]) {
    histogram.with("x").observe(value);
  }

  expect(await written(histogram)).toBe(`# HELP t_seconds h
# TYPE t_seconds histogram
t_seconds_bucket{a="x",le="1"} 2
t_seconds_bucket{a="x",le="2"} 4
t_seconds_bucket{a="x",le="+Inf"} 5
t_seconds_sum{a="x"} 7.5
t_seconds_count{a="x"} 5
`);
});

test("a histogram says what prom-client's own says of the same observations", async () => {
  const labels = fc.constantFrom("a", "b", "c");
  const values = fc.double({ min: 0, max: 3, noNaN: true });
  const observations = fc.array(fc.tuple(labels, fc.oneof(values, fc.constantFrom(0, 1, 2))));
  await fc.assert(
    fc.asyncProperty(observations, async (all) => {
      const naming = { name: "t_seconds", help: "h", labelNames: ["l"] };
      const ours = new Histogram({ ...naming, bounds: [0.5, 1, 2] });
      const theirs = new TheirHistogram({ ...naming, buckets: [0.5, 1, 2], registers: [] });
      for (const [label, value] of all) {
        ours.with(label).observe(value);
        theirs.labels(label).observe(value);
      }
      expect(sorted(await written(ours))).toEqual(sorted(await written(theirs)));
    }),
  );

  function sorted(text: string) {
    const { samples } = parseScrape(text);
    const lines = samples.map(({ name, labels, value }) => [
      name,
      labels["l"],
      labels["le"],
      value,
    ]);
    return lines.map(String).toSorted();
  }
});

test("label values keep their own counts, whatever is in them", async () => {
  const counter = new Counter({ name: "t_total", help: "h", labelNames: ["a", "b"] });
  counter.with("x", 'quo"te\\').value += 2;
  counter.with("x", "y").value += 1;

  expect(counter.with("x", "y")).toBe(counter.with("x", "y"));
  expect(parseScrape(await written(counter)).samples.map(({ value }) => value)).toEqual([2, 1]);
  expect(await written(counter)).toContain(String.raw`t_total{a="x",b="quo\"te\\"} 2`);
});

test("a reading is taken when it is asked for", async () => {
  let now = 1;
  const reading = new Reading({ name: "t", help: "h" }, () => [{ labels: {}, value: now }]);
  now = 2;
  expect(parseScrape(await written(reading)).value("t")).toBe(2);
});
