// @ts-check
// HPACK's Huffman code (RFC 7541, appendix B), for the printable ASCII that gRPC's headers consist of.

/**
 * The characters of each code length in code order. The code is canonical: within a length codes
 * count up, and the first of the next length follows from them. Left out is what no gRPC header can
 * hold: control and non-ASCII bytes, all of 19 bits or more but the backslash.
 * @type {[bits: number, characters: string][]}
 */
const CHARACTERS_BY_LENGTH = [
  [5, "012aceiost"],
  [6, " %-./3456789=A_bdfghlmnpru"],
  [7, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"],
  [8, "&*,;XZ"],
  [10, '!"()?'],
  [11, "'+|"],
  [12, "#>"],
  [13, "\0$@[]~"],
  [14, "^}"],
  [15, "<`{"],
  [19, "\\"],
];

const MAX_BITS = 19;

/** Characters by their code with a 1 in front, so that codes of different lengths differ. */
const characters = new Map(canonicalCodes());

/** @returns {Generator<[code: number, character: string]>} */
function* canonicalCodes() {
  let code = 0;
  let previousBits = 0;
  for (const [bits, group] of CHARACTERS_BY_LENGTH) {
    code <<= bits - previousBits;
    previousBits = bits;
    for (const character of group) {
      yield [(1 << bits) | code, character];
      code += 1;
    }
  }
}

/**
 * Decodes a Huffman-coded string. Throws on anything but printable ASCII and on wrong padding.
 * @param {Buffer} encoded
 */
export function decodeHuffman(encoded) {
  let text = "";
  let code = 1;
  for (const byte of encoded) {
    for (let bit = 7; bit >= 0; bit--) {
      code = (code << 1) | ((byte >> bit) & 1);
      const character = characters.get(code);
      if (character !== undefined) {
        text += character;
        code = 1;
      } else if (code >= 1 << MAX_BITS) {
        throw new Error("a Huffman code that is no printable ASCII");
      }
    }
  }
  // What is left must be the padding: at most 7 bits, all 1.
  if (code > 0xff || (code & (code + 1)) !== 0) throw new Error("wrong Huffman padding");
  return text;
}
