import fc from "fast-check";
import type { Listing, Name, Place } from "./model.ts";
import type { Change, Condition, Operation, Transact, Write } from "./operations.ts";

/**
 * Characters that other hands would order, match or quote differently: by UTF-16 units U+FFFF comes
 * behind U+10000, and from U+D7FF it is a long way to the next one that a text may hold.
 */
const keyCharacters = ["a", "_", "\ud7ff", "\uffff", "\u{10000}", "\u{10ffff}"];

/** Keys of few characters, so that operations meet: 6 of one, now and then 36 of two. */
export const key: fc.Arbitrary<string> = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...keyCharacters) },
  fc.string({ unit: fc.constantFrom(...keyCharacters), minLength: 2, maxLength: 2 }),
);

const bound = fc.oneof({ weight: 2, arbitrary: fc.constant("") }, key);

/** Values that jsonb writes as they are. */
export const value: fc.Arbitrary<string> = fc.oneof(
  { weight: 2, arbitrary: fc.nat(99).map(String) },
  fc.constantFrom("null", "false", '""', "1.0", '{"a": [1, 2]}', "12345678901234567890123"),
  fc.constantFrom("[]", "[1, 2, 3]", "{}", '{"a": 1, "b": {"c": null, "d": [1]}}'),
);

/** Changes whose results jsonb writes as the model does. Bounds are none that a sum may hit. */
const change: fc.Arbitrary<Change> = fc.oneof(
  fc
    .record({
      by: fc.constantFrom("", "1", "-0.5", "1e2", "-7.125"),
      initial: fc.constantFrom("", "", "10", "0.75"),
      min: fc.constantFrom("", "", "-3.1"),
      max: fc.constantFrom("", "", "50.2"),
      clamp: fc.boolean(),
    })
    .map((value) => ({ ...value, clamp: value.clamp && value.min + value.max !== "" }))
    .map((value) => ({ case: "increment" as const, value })),
  fc
    .constantFrom(
      "{}",
      '{"a":1}',
      '{"a":null}',
      '{"b":{"c":2,"d":null}}',
      '{"a":{"é":"x"}}',
      "null",
      "[7]",
      "7",
    )
    .map((value) => ({ case: "mergePatch" as const, value })),
  fc
    .record({
      valueJson: fc.constantFrom("1", "2", '"x"', '{"b":1,"a":[]}'),
      maxLength: fc.constantFrom(0, 0, 1, 3),
      unique: fc.boolean(),
    })
    .map((value) => ({ case: "append" as const, value })),
);

/** A name whose place is yet to be chosen: each run takes fresh ones. */
interface NumberedName {
  readonly place: number;
  readonly key: string;
}

/** `ifSeen`: the revision that the entry was last seen to have, or one beside it. */
type NumberedCondition =
  | { readonly case: "ifAbsent" | "ifPresent"; readonly value: true }
  | { readonly case: "ifSeen"; readonly plus: bigint };

const condition: fc.Arbitrary<NumberedCondition> = fc.oneof(
  fc.constantFrom("ifAbsent" as const, "ifPresent" as const).map((name) => ({
    case: name,
    value: true as const,
  })),
  fc.constantFrom(0n, 0n, 0n, 1n, -1n).map((plus) => ({ case: "ifSeen" as const, plus })),
);

type NumberedWrite = Write<NumberedName, NumberedCondition>;

/** An operation whose places and revisions are yet to be chosen. */
export type NumberedOperation =
  | NumberedWrite
  | Transact<NumberedName, NumberedCondition>
  | { readonly do: "get"; readonly name: NumberedName }
  | { readonly do: "batchGet"; readonly names: readonly NumberedName[] }
  | {
      readonly do: "list";
      readonly place: number;
      readonly listing: Omit<Listing, keyof Place>;
    };

function writes(name: fc.Arbitrary<NumberedName>): fc.Arbitrary<NumberedWrite> {
  const common = {
    name,
    condition: fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, condition),
    returnPrevious: fc.boolean(),
  };
  const expiry = {
    hours: fc.constantFrom(undefined, undefined, 1, 5),
    keepTtl: fc.boolean(),
  };
  return fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant("set" as const),
        ...common,
        ...expiry,
        valueJson: value,
      }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("delete" as const), ...common }) },
    {
      weight: 4,
      arbitrary: fc.record({ do: fc.constant("update" as const), ...common, ...expiry, change }),
    },
  );
}

/** Operations on the places given by number; their keys meet in each. */
export function operations(places: number): fc.Arbitrary<readonly NumberedOperation[]> {
  const place = fc.nat(places - 1);
  const name = fc.record({ place, key });
  const write = writes(name);
  return fc.array(
    fc.oneof(
      { weight: 9, arbitrary: write },
      {
        weight: 3,
        arbitrary: fc.record({
          do: fc.constant("transact" as const),
          checks: fc.oneof(
            { weight: 2, arbitrary: fc.constant([]) },
            fc.array(fc.record({ name, condition }), { maxLength: 2 }),
          ),
          operations: fc.array(write, { minLength: 1, maxLength: 4 }),
        }),
      },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("get" as const), name }) },
      {
        weight: 2,
        arbitrary: fc.record({
          do: fc.constant("batchGet" as const),
          names: fc.array(name, { minLength: 1, maxLength: 5 }),
        }),
      },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("list" as const), place, listing }) },
    ),
    { minLength: 1, maxLength: 80, size: "max" },
  );
}

const listing = fc
  .record({
    prefix: bound,
    bounds: fc.oneof(
      fc.record({ start: bound, end: bound }),
      fc.record({ startAfter: bound, end: bound }),
    ),
    reverse: fc.boolean(),
    keysOnly: fc.boolean(),
    pageSize: fc.constantFrom(0, 1, 2, 3, 1000),
  })
  .map(({ bounds, ...rest }) => ({ ...bounds, ...rest }));

/**
 * The operation in some of these places.
 *
 * @param revisionOf Which revision an entry was last seen to have.
 */
export function operationIn(
  places: readonly Place[],
  operation: NumberedOperation,
  revisionOf: (name: Name) => bigint | undefined,
): Operation {
  const named = ({ place, key }: NumberedName): Name => ({ ...places[place]!, key });
  const meant = (name: Name, given: NumberedCondition): Condition => {
    if (given.case !== "ifSeen") {
      return given;
    }
    const value = (revisionOf(name) ?? 0n) + given.plus;
    return { case: "ifRevision", value: value < 0n ? 0n : value };
  };
  const writeIn = (write: NumberedWrite): Write => {
    const name = named(write.name);
    return { ...write, name, condition: write.condition && meant(name, write.condition) };
  };
  switch (operation.do) {
    case "get":
      return { do: "get", name: named(operation.name) };
    case "batchGet":
      return { do: "batchGet", names: operation.names.map(named) };
    case "list":
      return { do: "list", listing: { ...places[operation.place]!, ...operation.listing } };
    case "transact": {
      const checks = operation.checks.map((check) => {
        const name = named(check.name);
        return { name, condition: meant(name, check.condition) };
      });
      return { do: "transact", checks, operations: operation.operations.map(writeIn) };
    }
    default:
      return writeIn(operation);
  }
}
