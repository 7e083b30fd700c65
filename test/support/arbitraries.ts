import fc from "fast-check";
import type { Listing, Name, Operation, Place } from "./model.ts";

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
  fc.nat(99).map(String),
  fc.constantFrom("null", "false", '""', "1.0", '{"a": [1, 2]}', "12345678901234567890123"),
);

/** Operations on the places given by number; their keys meet in each. */
export function operations(places: number): fc.Arbitrary<readonly NumberedOperation[]> {
  const place = fc.nat(places - 1);
  const bounds = fc.oneof(
    fc.record({ start: bound, end: bound }),
    fc.record({ startAfter: bound, end: bound }),
  );
  const listing = fc
    .record({
      prefix: bound,
      bounds,
      reverse: fc.boolean(),
      keysOnly: fc.boolean(),
      pageSize: fc.constantFrom(0, 1, 2, 3, 1000),
    })
    .map(({ bounds: range, ...rest }) => ({ ...range, ...rest }));
  return fc.array(
    fc.oneof(
      { weight: 6, arbitrary: fc.record({ do: fc.constant("set" as const), place, key, value }) },
      { weight: 3, arbitrary: fc.record({ do: fc.constant("delete" as const), place, key }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("get" as const), place, key }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("list" as const), place, listing }) },
    ),
    { minLength: 1, maxLength: 80, size: "max" },
  );
}

/** An operation whose place is yet to be chosen: each run takes fresh ones. */
export type NumberedOperation =
  | { do: "set"; place: number; key: string; value: string }
  | { do: "delete" | "get"; place: number; key: string }
  | { do: "list"; place: number; listing: Omit<Listing, keyof Place> };

/** The operation in one of these places. */
export function operationIn(places: readonly Place[], operation: NumberedOperation): Operation {
  const place = places[operation.place]!;
  if (operation.do === "list") {
    return { do: "list", listing: { ...place, ...operation.listing } };
  }
  const name: Name = { ...place, key: operation.key };
  return operation.do === "set"
    ? { do: "set", name, valueJson: operation.value }
    : { do: operation.do, name };
}

/** Bytes at random, and messages that were well-formed before something happened to them. */
export function damagedBytes(messages: readonly Uint8Array[]): fc.Arbitrary<Buffer> {
  const damage = fc.record({
    at: fc.nat(),
    removed: fc.constantFrom(0, 0, 1, 1, 2, 8),
    added: fc.oneof(
      fc.uint8Array({ maxLength: 4 }),
      fc.constantFrom(...splinters).map((bytes) => Uint8Array.from(bytes)),
      fc.constantFrom(...messages),
    ),
  });
  const damaged = fc
    .tuple(fc.constantFrom(...messages), fc.array(damage, { minLength: 1, maxLength: 4 }))
    .map(([message, all]) => all.reduce(applyDamage, Buffer.from(message)));
  return fc.oneof(
    { weight: 4, arbitrary: damaged },
    fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes)),
  );
}

function applyDamage(
  bytes: Buffer,
  { at, removed, added }: { at: number; removed: number; added: Uint8Array },
): Buffer {
  const from = at % (bytes.length + 1);
  return Buffer.concat([bytes.subarray(0, from), added, bytes.subarray(from + removed)]);
}

/** Tags of every wire type, varints without end or beyond 64 bits, surrogates, groups, U+0000. */
const splinters = [
  [0x08],
  [0x0a],
  [0x0b],
  [0x0c],
  [0x0d],
  [0x0f],
  [0x00],
  [0x07],
  [0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
  [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
  [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
  [0xed, 0xa0, 0x80],
  [0xc0, 0x80],
  [0xf5, 0x80, 0x80, 0x80],
  [0x1a, 0x00],
];
