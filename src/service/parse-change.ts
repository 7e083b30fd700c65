import type {
  Append,
  Increment,
  UpdateRequest,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import { InvalidField } from "../state/errors.ts";
import { maxMergePatchDepth, maxValueDepth } from "../state/limits.ts";
import type { UpdateEntry } from "../state/requests.ts";
import { parseJson, within } from "./parse.ts";

/**
 * What an Update does to a value.
 *
 * @throws {InvalidField} {@link InvalidValue} {@link TooLarge}
 */
export function parseChange(
  change: UpdateRequest["change"],
  maxValueBytes: number,
): Pick<UpdateEntry, "kind" | "argumentJson"> {
  switch (change.case) {
    case undefined:
      throw new InvalidField("change", "is required: increment, merge_patch or append");
    case "increment":
      return {
        kind: "increment",
        argumentJson: within("increment", () => parseIncrement(change.value, maxValueBytes)),
      };
    case "mergePatch":
      return {
        kind: "merge_patch",
        argumentJson: parseJson("merge_patch", change.value, maxValueBytes, maxMergePatchDepth),
      };
    case "append":
      return {
        kind: "append",
        argumentJson: within("append", () => parseAppend(change.value, maxValueBytes)),
      };
  }
}

function parseIncrement(increment: Increment, maxBytes: number): string {
  const by = parseNumber("by", increment.by, maxBytes) ?? "1";
  const initial = parseNumber("initial", increment.initial, maxBytes);
  const min = parseNumber("min", increment.min, maxBytes);
  const max = parseNumber("max", increment.max, maxBytes);
  if (increment.clamp && min === undefined && max === undefined) {
    throw new InvalidField("clamp", "needs min or max");
  }
  return jsonObject({ by, initial, min, max, clamp: increment.clamp ? "true" : undefined });
}

/** A JSON number as text; undefined when there is none. */
function parseNumber(field: string, text: string, maxBytes: number): string | undefined {
  if (text === "") {
    return undefined;
  }
  if (!/^-?[0-9]/.test(text)) {
    throw new InvalidField(field, "is no JSON number");
  }
  return parseJson(field, text, maxBytes);
}

function parseAppend(append: Append, maxBytes: number): string {
  // The array around it is a level too.
  const item = parseJson("value_json", append.valueJson, maxBytes, maxValueDepth - 1);
  if (append.maxLength < 0) {
    throw new InvalidField("max_length", "must not be negative");
  }
  const maxLength = append.maxLength === 0 ? undefined : String(append.maxLength);
  return jsonObject({ item, max_length: maxLength, unique: append.unique ? "true" : undefined });
}

/** A JSON object of members that are JSON text; those that are undefined are left out. */
function jsonObject(members: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(members).filter(([, text]) => text !== undefined);
  return `{${given.map(([name, text]) => `"${name}":${text}`).join(",")}}`;
}
