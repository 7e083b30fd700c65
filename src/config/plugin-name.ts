import { maxPluginKeyBytes } from "./limits.ts";

/** What {@link isPluginName} demands, completing "must be …". */
export const pluginNameRule = `a plugin's key (or UUID): 1 to ${maxPluginKeyBytes} bytes, no space or comma, not starting with -`;

/** Whether a text has the form of a UUID. */
export function isUuid(text: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
}

/** Whether a text can be a plugin's key (or UUID): no space, comma or control character, no flag. */
export function isPluginName(text: string): boolean {
  return /^[^\s,\p{Cc}-][^\s,\p{Cc}]*$/u.test(text) && Buffer.byteLength(text) <= maxPluginKeyBytes;
}
