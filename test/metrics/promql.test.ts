import { expect, test } from "vitest";
import { usesOf } from "../support/promql.ts";

test.each([
  ["up == 0", [{ metric: "up", labels: [] }], []],
  [
    'sum by (job, le) (rate(a_bucket{code!="O{}K", job=~"$job"}[5m])) / b > 0.5',
    [
      { metric: "a_bucket", labels: ["code", "job"] },
      { metric: "b", labels: [] },
    ],
    ["job", "le"],
  ],
  [
    "histogram_quantile(0.99, rate(c[$__rate_interval])) and on (x) d offset 5m",
    [
      { metric: "c", labels: [] },
      { metric: "d", labels: [] },
    ],
    ["x"],
  ],
  ["count by (version) (e{})", [{ metric: "e", labels: [] }], ["version"]],
])("%s", (expression, metrics, grouping) => {
  expect(usesOf(expression)).toEqual({ metrics, grouping });
});
