// Writes a Grafana dashboard as TypeScript that has to fit Grafana's own types, those of its panels and
// queries too, with no property that they don't know: node scripts/ci/dashboard-types.js DASHBOARD.json SDK
import { readFileSync } from "node:fs";

const [, , file = "", sdk = ""] = process.argv;
const { panels, ...dashboard } = JSON.parse(readFileSync(file, "utf8"));
const kinds = [...new Set(panels.map(({ type }) => type))].filter((type) => type !== "row");

console.log(`
import type * as dashboard from "${sdk}/dist/dashboard";
import type { Dataquery } from "${sdk}/dist/prometheus";
${kinds.map((kind) => `import type * as ${kind} from "${sdk}/dist/${kind}";`).join("\n")}

/** As JSON has it: text and numbers where the types have enums, no methods. */
type Plain<T> = T extends string
  ? \`\${T}\`
  : T extends number
    ? \`\${T}\` extends \`\${infer N extends number}\` ? N : T
    : T extends (infer U)[]
      ? Plain<U>[]
      : T extends object
        ? { [K in keyof T as T[K] extends () => unknown ? never : K]: Plain<T[K]> }
        : T;
type Parts = { ${kinds.map((kind) => `${kind}: { options: ${kind}.Options; custom: ${custom(kind)} }`).join("; ")} };
type Defaults<C> = Omit<Plain<dashboard.FieldConfig>, "custom"> & { custom?: Plain<C> };
type PanelOf<K extends keyof Parts> = Omit<Plain<dashboard.Panel>, "type" | "options" | "targets" | "fieldConfig"> & {
  type: K;
  options: Partial<Plain<Parts[K]["options"]>>;
  targets: (Omit<Plain<Dataquery>, "_implementsDataqueryVariant"> & { datasource: { type: string; uid: string } })[];
  fieldConfig: { defaults: Defaults<Partial<Parts[K]["custom"]>>; overrides: [] };
};

export const rest: Plain<Omit<dashboard.Dashboard, "panels">> = ${JSON.stringify(dashboard)};`);
for (const { type, ...panel } of panels) {
  const expected = type === "row" ? "Plain<dashboard.RowPanel>" : `PanelOf<"${type}">`;
  console.log(
    `export const panel${panel.id}: ${expected} = ${JSON.stringify({ type, ...panel })};`,
  );
}

/** A stat has no settings of its own for its fields. */
function custom(kind) {
  return kind === "stat" ? "object" : `${kind}.FieldConfig`;
}
