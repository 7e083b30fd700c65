/** Shorter tokens can be guessed. */
export const minTokenLength = 16;
export const maxTokenLength = 4096;

/** Whether a text can be a token: printable ASCII without spaces, not too short. */
export function isToken(text: string): boolean {
  const { length } = text;
  return length >= minTokenLength && length <= maxTokenLength && /^[\x21-\x7e]+$/.test(text);
}
