/** What pg's own queries use, and its types leave out. */
declare module "pg/lib/utils.js" {
  /** A value as the protocol sends it: text, bytes or null. Arrays become array literals. */
  export function prepareValue(value: unknown): string | Buffer | null;
}
