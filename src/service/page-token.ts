import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto";
import { InvalidField } from "../state/errors.ts";

/** What a page token is bound to: one plugin, one RPC, and its request, all but the page size. */
export interface PagedRequest {
  readonly pluginId: string;
  /** The RPC's name. */
  readonly rpc: string;
  /** The request's fields, parsed, in an order of the RPC's own. */
  readonly fields: readonly (string | boolean | undefined)[];
}

const cipher = "aes-256-gcm";
const ivBytes = 12;
const tagBytes = 16;
/** Between the names in a token. No name holds it. */
const separator = "\0";

/**
 * A token for the page after the one that ended with this.
 *
 * It is encrypted under a key made from the request itself. So it is opaque, and any sidecar of the
 * plugin can read it, but only together with the request it belongs to. It is no secret and needs
 * none: it names a place within the range its request asks for, and carries no authority.
 *
 * @param last What names the last item of the page, in the order of the listing.
 */
export function writePageToken(last: readonly string[], request: PagedRequest): string {
  const iv = randomBytes(ivBytes);
  const encryption = createCipheriv(cipher, keyOf(request), iv);
  const content = Buffer.concat([
    encryption.update(last.join(separator), "utf8"),
    encryption.final(),
  ]);
  return Buffer.concat([iv, encryption.getAuthTag(), content]).toString("base64url");
}

/**
 * What names the last item of the page before: as many names as were written.
 *
 * @throws {InvalidField} for a token that was not given for this request.
 */
export function readPageToken(token: string, request: PagedRequest): string[] {
  const last = decrypt(token, request);
  if (last === undefined) {
    throw foreignPageToken();
  }
  return last.split(separator);
}

/** What a token is refused with that was not given for its request. */
export function foreignPageToken(): InvalidField {
  return new InvalidField("page_token", "was not given for this request, or is damaged");
}

function decrypt(token: string, request: PagedRequest): string | undefined {
  const bytes = Buffer.from(token, "base64url");
  const iv = bytes.subarray(0, ivBytes);
  const tag = bytes.subarray(ivBytes, ivBytes + tagBytes);
  try {
    const decryption = createDecipheriv(cipher, keyOf(request), iv, { authTagLength: tagBytes });
    decryption.setAuthTag(tag);
    const content = bytes.subarray(ivBytes + tagBytes);
    return Buffer.concat([decryption.update(content), decryption.final()]).toString("utf8");
  } catch {
    return undefined;
  }
}

function keyOf({ pluginId, rpc, fields }: PagedRequest): Buffer {
  const text = JSON.stringify(["page token 1", pluginId, rpc, ...fields]);
  return createHash("sha256").update(text).digest();
}
