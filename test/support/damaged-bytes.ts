import fc from "fast-check";

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
