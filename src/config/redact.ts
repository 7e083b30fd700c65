const redacted = "***";

/**
 * `user:password@` of any URL in a text; greedy, for a password may contain a raw `@` or `/`. Our own
 * messages show the form of a URL with the word PASSWORD.
 */
const urlPassword = /(\w[\w+.-]*:\/\/[^\s:@/"']*):(?!PASSWORD@)\S*@/g;

/** `password=…` and the like, in a URL's query or in libpq's keyword form. */
const passwordField = /\b(password|passwd|pwd|sslpassword)=(?:'[^']*'|[^\s&"']*)/gi;

/** Takes the passwords of URLs and connection strings out of a text meant for logs and people. */
export function redactSecrets(text: string): string {
  return text.replace(urlPassword, `$1:${redacted}@`).replace(passwordField, `$1=${redacted}`);
}
