// Writes the expressions of a Grafana dashboard as recording rules, which promtool can check:
// node scripts/ci/dashboard-rules.js DASHBOARD.json
import { readFileSync } from "node:fs";

const [, , file = ""] = process.argv;
const dashboard = JSON.parse(readFileSync(file, "utf8"));
const rules = dashboard.panels.flatMap(({ id, targets = [] }) =>
  targets.map(({ refId, expr }) => ({
    record: `panel_${id}:${refId}`,
    expr: expr.replaceAll("$__rate_interval", "5m"),
  })),
);
if (rules.length === 0) throw new Error(`no expressions in ${file}`);
// JSON is YAML.
console.log(JSON.stringify({ groups: [{ name: "dashboard", rules }] }));
