import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import fc from "fast-check";

const int64 = fc.oneof(
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  fc.constantFrom(0n, 1n, 127n, 128n, 2n ** 31n, 2n ** 49n, 2n ** 53n - 1n, 2n ** 53n, -1n),
);
const int32 = fc.oneof(fc.integer(), fc.constantFrom(0, 1, -1, 127, 128, 2 ** 31 - 1, -(2 ** 31)));
const text = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.constantFrom("", "é", "𝒳", "\ufeff", "\ufffd", "x".repeat(300)),
);

/** Values of each type. */
interface Values {
  readonly int64: fc.Arbitrary<bigint>;
  readonly int32: fc.Arbitrary<number>;
  readonly text: fc.Arbitrary<string>;
}

const anyValues: Values = { int64, int32, text };

/** As clients usually send them: what is read without protobuf-es. */
export const plainValues: Values = {
  int64: fc.bigInt({ min: 0n, max: 2n ** 49n - 1n }),
  int32: fc.nat(),
  text: text.filter((value) => !value.includes("\ufffd")),
};

/** Any message of a type, as a handler may give it: with fields that are missing, and defaults. */
export function anyMessage(
  desc: DescMessage,
  values: Values = anyValues,
): fc.Arbitrary<Record<string, unknown>> {
  const members = desc.members.map((member) => {
    if (member.kind === "oneof") {
      const choices = member.fields.map((field) =>
        fc.record({ case: fc.constant(field.localName), value: anyValue(field, values) }),
      );
      return [member.localName, fc.oneof(fc.constant({ case: undefined }), ...choices)] as const;
    }
    const value = anyValue(member, values);
    const isList = member.fieldKind === "list";
    return [member.localName, isList ? fc.array(value, { maxLength: 4 }) : value] as const;
  });
  return fc.record(Object.fromEntries(members), {
    requiredKeys: desc.oneofs.map(({ localName }) => localName),
  });
}

/** Any value of a field, or of one item in its list. */
function anyValue(field: DescField, values: Values): fc.Arbitrary<unknown> {
  if (field.fieldKind === "map") throw new Error(`${field.name} is a map`);
  if (field.message !== undefined) return anyMessage(field.message, values);
  if (field.enum !== undefined) return values.int32;
  switch (field.scalar) {
    case ScalarType.STRING:
      return values.text;
    case ScalarType.BOOL:
      return fc.boolean();
    case ScalarType.INT32:
      return values.int32;
    case ScalarType.INT64:
      return values.int64;
    default:
      throw new Error(`${field.name} is of a type that the API doesn't have`);
  }
}
