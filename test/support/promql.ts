/** A metric that a PromQL expression reads, and the labels that it chooses by. */
export interface MetricUse {
  readonly metric: string;
  readonly labels: readonly string[];
}

/** What an expression reads. */
export interface ExpressionUse {
  readonly metrics: readonly MetricUse[];
  /** The labels that it groups by: of every metric in it. */
  readonly grouping: readonly string[];
}

const operators: ReadonlySet<string> = new Set(["and", "or", "unless", "bool", "offset"]);
const groupings: ReadonlySet<string> = new Set([
  "by",
  "without",
  "on",
  "ignoring",
  "group_left",
  "group_right",
]);

/** Strings, ranges, names (with what is between their braces), numbers; whatever else is one character. */
const token =
  /"(?:[^"\\]|\\.)*"|\[[^\]]*\]|(?<name>[a-zA-Z_:][\w:]*)\s*(?<braces>\{(?:[^}"]|"(?:[^"\\]|\\.)*")*\})?|\d[\w.]*|\S/g;
const matcher = /([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)\s*"(?:[^"\\]|\\.)*"/g;

/**
 * Finds the metrics and labels of a PromQL expression that is well-formed (promtool sees to that): a
 * name that no parenthesis or `by` follows is a metric's, unless it is an operator or stands in a grouping.
 */
export function usesOf(expression: string): ExpressionUse {
  const metrics: MetricUse[] = [];
  const grouping: string[] = [];
  const tokens = [...expression.matchAll(token)];
  let isGrouping = false;
  for (const [at, found] of tokens.entries()) {
    const { name, braces } = found.groups ?? {};
    if (found[0] === ")") {
      isGrouping = false;
    } else if (name === undefined) {
    } else if (isGrouping) {
      grouping.push(name);
    } else if (groupings.has(name)) {
      isGrouping = tokens[at + 1]?.[0] === "(";
    } else if (!isCalled(tokens[at + 1]?.[0].trim()) && !operators.has(name)) {
      const labels = [...(braces ?? "").matchAll(matcher)].map(([, label = ""]) => label);
      metrics.push({ metric: name, labels });
    }
  }
  return { metrics, grouping };
}

/** Whether what stands before it is a function or an aggregation. */
function isCalled(next: string | undefined): boolean {
  return next === "(" || next === "by" || next === "without";
}
