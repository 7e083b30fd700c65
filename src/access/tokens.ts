import { createHash, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import type { TokenSource } from "../config/config.ts";
import { isToken, maxTokenLength, minTokenLength } from "../config/token.ts";

/** What isn't good for a token; the message names neither it nor its source's content. */
export class InvalidTokens extends Error {
  override readonly name = "InvalidTokens";
}

/** The tokens that a listener accepts. Several are good at once while one replaces another. */
export class Tokens {
  readonly #source: TokenSource;
  /** SHA-256 of each: of one length, as a comparison in constant time wants it. */
  #digests: readonly Buffer[];

  /** @throws {InvalidTokens} */
  constructor(source: TokenSource) {
    this.#source = source;
    this.#digests = digestsOf(source);
  }

  /** The file that is to be watched, if the tokens come from one. */
  get file(): string | undefined {
    return this.#source.kind === "file" ? this.#source.path : undefined;
  }

  /**
   * Reads the source again.
   *
   * @throws {InvalidTokens} and keeps the tokens there were.
   */
  reload(): void {
    this.#digests = digestsOf(this.#source);
  }

  /** Whether an `authorization` is `Bearer` and one of the tokens. Takes as long for any wrong one. */
  accepts(authorization: string | undefined): boolean {
    const [, token] = /^Bearer ([\x21-\x7e]+)$/i.exec(authorization ?? "") ?? [];
    const digest = digestOf(token ?? "");
    let isGood = false;
    for (const good of this.#digests) {
      isGood = timingSafeEqual(digest, good) || isGood;
    }
    return isGood;
  }
}

function digestsOf(source: TokenSource): readonly Buffer[] {
  const tokens = source.kind === "text" ? [source.token] : tokensInFile(source.path);
  const name = source.kind === "text" ? source.name : source.path;
  if (tokens.length === 0) {
    throw new InvalidTokens(`${name} holds no token`);
  }
  if (!tokens.every(isToken)) {
    const range = `${minTokenLength} to ${maxTokenLength}`;
    throw new InvalidTokens(`${name}: a token has ${range} characters of ASCII, and no space`);
  }
  return tokens.map(digestOf);
}

function digestOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

/** One on each line. */
function tokensInFile(path: string): string[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    throw new InvalidTokens(`can't read ${path} (${code})`, { cause: error });
  }
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}
