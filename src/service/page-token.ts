import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto";
import type { Scope } from "../state/entry.ts";
import { InvalidField } from "../state/errors.ts";

/** What a page token is bound to: the listing, all but its page size. */
export interface PageShape {
  readonly pluginId: string;
  readonly scope: Scope;
  readonly namespace: string;
  readonly prefix: string;
  readonly start: string;
  readonly startAfter: string;
  readonly end: string;
  readonly reverse: boolean;
  readonly keysOnly: boolean;
}

const cipher = "aes-256-gcm";
const ivBytes = 12;
const tagBytes = 16;

/**
 * A token for the page after the one that ended with this key.
 *
 * It is encrypted under a key made from the listing itself. So it is opaque, and any sidecar of the
 * plugin can read it, but only together with the request it belongs to. It is no secret and needs
 * none: it names a key within the range its request asks for, and carries no authority.
 */
export function writePageToken(lastKey: string, shape: PageShape): string {
  const iv = randomBytes(ivBytes);
  const encryption = createCipheriv(cipher, keyOf(shape), iv);
  const content = Buffer.concat([encryption.update(lastKey, "utf8"), encryption.final()]);
  return Buffer.concat([iv, encryption.getAuthTag(), content]).toString("base64url");
}

/**
 * The last key of the page before.
 *
 * @throws {InvalidField} for a token that was not given for this listing.
 */
export function readPageToken(token: string, shape: PageShape): string {
  const key = decrypt(token, shape);
  // Nobody stores a key with U+0000: this one was forged.
  if (key === undefined || key.includes("\0")) {
    throw new InvalidField("page_token", "was not given for this request, or is damaged");
  }
  return key;
}

function decrypt(token: string, shape: PageShape): string | undefined {
  const bytes = Buffer.from(token, "base64url");
  const iv = bytes.subarray(0, ivBytes);
  const tag = bytes.subarray(ivBytes, ivBytes + tagBytes);
  try {
    const decryption = createDecipheriv(cipher, keyOf(shape), iv, { authTagLength: tagBytes });
    decryption.setAuthTag(tag);
    const content = bytes.subarray(ivBytes + tagBytes);
    return Buffer.concat([decryption.update(content), decryption.final()]).toString("utf8");
  } catch {
    return undefined;
  }
}

function keyOf(shape: PageShape): Buffer {
  const { pluginId, scope, namespace, prefix, start, startAfter, end, reverse, keysOnly } = shape;
  const listing = [pluginId, scope.kind, scope.id, namespace, prefix, start, startAfter, end];
  const text = JSON.stringify(["page token 1", ...listing, reverse, keysOnly]);
  return createHash("sha256").update(text).digest();
}
