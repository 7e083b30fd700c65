import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { parse } from "yaml";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { failure } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { anyPort, type Scrape, scrape } from "../support/metrics.ts";
import { usesOf } from "../support/promql.ts";
import { testSidecar } from "../support/sidecar.ts";

// Dashboard, alerts and documentation against what a sidecar really exports.

const file = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");

interface Panel {
  readonly id: number;
  readonly title: string;
  readonly type: string;
  readonly description?: string;
  readonly datasource?: { readonly uid: string };
  readonly gridPos: {
    readonly x: number;
    readonly y: number;
    readonly w: number;
    readonly h: number;
  };
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[];
}
interface Variable {
  readonly name: string;
  readonly type: string;
  readonly query: string | { readonly query: string };
}
interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly annotations: Readonly<Record<string, string>>;
}

const dashboard: {
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly Variable[] };
} = JSON.parse(file("deploy/grafana/plugin-state.json"));
const alerts: readonly Rule[] = parse(file("deploy/prometheus/alerts.yml")).groups.flatMap(
  ({ rules }: { rules: readonly Rule[] }) => rules,
);
const panels = dashboard.panels.filter(({ type }) => type !== "row");
const expressions = [
  ...panels.flatMap(({ title, targets = [] }) =>
    targets.map(({ expr, legendFormat }) => [`panel ${title}`, expr, legendFormat] as const),
  ),
  ...alerts.map(({ alert, expr, annotations }) => {
    const used = Object.values(annotations).join(" ");
    return [`alert ${alert}`, expr, used.replaceAll("$labels.", "")] as const;
  }),
];

let database: TestDatabase;
let scraped: Scrape;
/** By metric, as expressions name it: the labels that any of its lines has. */
const labelsOf = new Map<string, Set<string>>([["up", new Set()]]);
/** What Prometheus itself adds to every line. */
const targetLabels = ["job", "instance"];

beforeAll(async () => {
  database = await testDatabase();
  await using served = await testSidecar(database, ["demo"], { metricsListen: anyPort });
  await callEverything(served.client);
  // Removes an entry whose time is over; garbage is collected sooner or later.
  await vi.waitFor(
    async () => {
      scraped = await scrape(served.sidecar.metrics);
      expect(scraped.value("plugin_state_swept_total", { kind: "entries" })).toBeGreaterThan(0);
      expect(scraped.value("nodejs_gc_duration_seconds_sum")).toBeDefined();
    },
    { timeout: 30_000, interval: 100 },
  );
  for (const { name, labels } of scraped.samples) {
    const known = labelsOf.get(name) ?? new Set();
    for (const label of Object.keys(labels)) {
      known.add(label);
    }
    labelsOf.set(name, known);
  }
});

afterAll(() => database[Symbol.asyncDispose]());

async function callEverything(client: Awaited<ReturnType<typeof testSidecar>>["client"]) {
  const scope = { kind: ScopeKind.INSTANCE };
  const name = { scope, key: "k" };
  await client.call("set", { ...name, valueJson: "1" });
  await client.call("set", { scope, key: "short", valueJson: "1", ttl: { nanos: 1000 } });
  await client.call("get", name);
  await client.call("batchGet", { names: [name] });
  await client.call("list", { scope });
  await client.call("listScopes", {});
  await client.call("getServerInfo", {});
  await client.call("deleteRange", { scope, namespace: "other" });
  await client.call("delete", name);
  await failure(client.call("set", { ...name, valueJson: "{" }));
  // Too large: no RPC sees it.
  await failure(client.send("set", Buffer.alloc(20 * 1024 * 1024)));
  await database.query(`
    create function refuse() returns trigger language plpgsql as
      $$ begin raise exception 'no' using errcode = '22003'; end $$;
    create trigger refuse before insert on plugin_sidecar.plugin_state
      for each row when (new.state_key = 'bad') execute function refuse()`);
  await failure(client.call("set", { scope, key: "bad", valueJson: "1" }));
}

test.each(expressions)("%s: every metric and label is exported", (_name, expression, told) => {
  const { metrics, grouping } = usesOf(expression);
  expect(metrics).not.toEqual([]);
  const usable = new Set(targetLabels);
  for (const { metric, labels } of metrics) {
    expect([...labelsOf.keys()], `the metric ${metric}`).toContain(metric);
    const known = [...(labelsOf.get(metric) ?? []), ...targetLabels];
    expect(known, `the labels of ${metric}`).toEqual(
      expect.arrayContaining([...labels, ...grouping]),
    );
    for (const label of [...labels, ...grouping]) usable.add(label);
    // What isn't grouped keeps all of its labels.
    if (grouping.length === 0) for (const label of known) usable.add(label);
  }
  const placeholders = [...told.matchAll(/\{\{\s*(\w+)/g)].map(([, label]) => label);
  const templates = placeholders.filter((label) => label !== "labels" && label !== "value");
  expect([...usable]).toEqual(expect.arrayContaining(templates));
});

test("values that expressions choose by are such as the sidecar exports, or may", () => {
  const codes = "OK|INTERNAL|UNKNOWN|UNAVAILABLE|DEADLINE_EXCEEDED|DATA_LOSS".split("|");
  const methods = "Get|BatchGet|Set|Delete|Update|Transact".split("|");
  const chosen = expressions.flatMap(([, expression]) =>
    [...expression.matchAll(/\b(code|method)(?:=~|!=|=)"([^"]*)"/g)].flatMap(
      ([, label, text = ""]) => text.split("|").map((value) => `${label}=${value}`),
    ),
  );
  const possible = [...codes.map((it) => `code=${it}`), ...methods.map((it) => `method=${it}`)];
  expect(possible).toEqual(expect.arrayContaining([...new Set(chosen)]));
});

test("every metric of ours has a help text and a row in docs/metrics.md, and no row is left over", () => {
  const exported = [...scraped.types].filter(([name]) => name.startsWith("plugin_state_"));
  const rows = file("docs/metrics.md").matchAll(
    /^\| `(plugin_state_\w+)` \| (\w+) \| ([^|]*) \|/gm,
  );
  const documented = [...rows].map(([, name, type, labels = ""]) => {
    const names = [...labels.matchAll(/`(\w+)`/g)].map(([, label]) => label);
    return `${name} ${type} ${names.toSorted().join(",")}`;
  });
  const real = exported.map(([name, type]) => {
    const lines = scraped.samples.filter((sample) => seriesOf(sample.name) === name);
    const labels = new Set(lines.flatMap((line) => Object.keys(line.labels)));
    labels.delete("le");
    return `${name} ${type} ${[...labels].toSorted().join(",")}`;
  });
  expect(documented.toSorted()).toEqual(real.toSorted());
  for (const [name] of exported) {
    expect(scraped.help.get(name), name).toMatch(/^[A-Z0-9].{10,}\.$/);
  }

  function seriesOf(sample: string): string {
    const base = sample.replace(/_(bucket|sum|count)$/, "");
    return scraped.types.get(base) === "histogram" ? base : sample;
  }
});

test("every metric of ours is on the dashboard", () => {
  const shown = new Set(
    panels.flatMap(({ targets = [] }) =>
      targets.flatMap(({ expr }) => usesOf(expr).metrics.map(({ metric }) => baseOf(metric))),
    ),
  );
  const ours = [...scraped.types.keys()].filter((name) => name.startsWith("plugin_state_"));
  expect([...shown]).toEqual(expect.arrayContaining(ours));

  function baseOf(metric: string): string {
    return scraped.types.has(metric) ? metric : metric.replace(/_(bucket|sum|count)$/, "");
  }
});

test("panels have ids, descriptions and places of their own, and the chosen data source", () => {
  const ids = dashboard.panels.map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
  const cells = new Set<string>();
  for (const { title, type, description, datasource, gridPos } of dashboard.panels) {
    expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24);
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        expect(cells.has(`${x},${y}`), `${title} covers another panel`).toBe(false);
        cells.add(`${x},${y}`);
      }
    }
    if (type !== "row") {
      expect(description, title).toMatch(/\.$/);
      expect(datasource?.uid, title).toBe(`\${datasource}`);
    }
  }
});

test("the dashboard's variables are used, and made from what is exported", () => {
  const { list } = dashboard.templating;
  expect(list.map(({ name }) => name)).toEqual(["datasource", "job", "instance"]);
  for (const { query } of list.slice(1)) {
    const [, metric = ""] =
      /^label_values\((\w+)/.exec(typeof query === "string" ? query : query.query) ?? [];
    expect([...labelsOf.keys()]).toContain(metric);
  }
  for (const { title, targets = [] } of panels) {
    for (const { expr } of targets) {
      expect(expr, title).toContain('{job=~"$job", instance=~"$instance"');
    }
  }
});

test("each alert says what and why, and links to a section that its page has", () => {
  for (const { alert, annotations } of alerts) {
    expect(annotations["summary"], alert).toContain("$labels.instance");
    expect(annotations["description"], alert).toMatch(/\.$/);
    const [page = "", anchor = ""] = annotations["runbook_url"]?.split("#") ?? [];
    expect(page, alert).toBe("docs/operations.md");
    expect(anchorsOf(file(page)), alert).toContain(anchor);
    expect(file("docs/metrics.md")).toContain(`\`${alert}\``);
  }
});

test("the PodMonitor gives its job the name that the alerts choose by", () => {
  const { spec } = parse(file("deploy/kubernetes/pod-monitor.yaml"));
  const [, job] = /job="([^"]+)"/.exec(alerts[0]!.expr) ?? [];
  expect(job).toBe("plugin-state");
  for (const { relabelings } of spec.podMetricsEndpoints) {
    expect(relabelings).toContainEqual({ action: "replace", targetLabel: "job", replacement: job });
  }
});

/** What a link can lead to: explicit ids, and headings in the spelling that links to them have. */
function anchorsOf(page: string): string[] {
  const prose = page.replace(/^```.*?^```$/gms, "");
  const ids = [...prose.matchAll(/<a id="([^"]+)"><\/a>/g)].map(([, id]) => id!);
  const headings = [...prose.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
  return [...ids, ...headings];
}
