import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readlinkSync, rmSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { basename, join } from "node:path";
import { errorCode, inUseElsewhere } from "./embedded-error.ts";
import { isAlive } from "./postmaster.ts";

/** What a sidecar says of itself to another one that asks. */
interface Stance {
  readonly word: "here" | "leaving";
  /** The process id namespace it is in; undefined for one that didn't say. */
  readonly namespace?: string | undefined;
}

/** Until when to ask, and whether to wait for one that is leaving. */
type AskHow = [signal?: AbortSignal, wait?: "until it has left"];

const namePattern = /^sidecar-(\d+)-[0-9a-f]{8}$/;
// A sidecar whose event loop is busy still accepts; if it says nothing it is taken to be here, and
// nothing is stopped.
const answerWithinMs = 2_000;
const silent: Stance = { word: "here" };
const goneCodes = new Set(["ECONNREFUSED", "ECONNRESET", "ENOENT", "EPIPE"]);

const ownNamespace = process.platform === "linux" ? pidNamespace() : "";

/**
 * A sidecar's presence on a server it shares: a unix socket `sidecar-<pid>-<random>` beside the
 * server's, which says "here" or "leaving" to whoever connects. The kernel closes it with the
 * process, so a killed sidecar is never counted.
 *
 * No lock is needed. Who arrives shows itself first and asks the others then; who leaves says so
 * first and asks the others then. So of two that meet, one at least sees the other: either the
 * leaver counts the newcomer and lets the server be, or the newcomer waits for the leaver to have
 * stopped it, and then starts it again.
 */
export class Presence {
  readonly #dir: string;
  readonly #name: string;
  readonly #listener: Server;
  readonly #waiting = new Set<Socket>();
  #word: Stance["word"] = "here";

  private constructor(dir: string) {
    this.#dir = dir;
    this.#name = `sidecar-${process.pid}-${randomBytes(4).toString("hex")}`;
    this.#listener = createServer((socket) => this.#answer(socket)).unref();
  }

  /**
   * Shows this sidecar to the others, and returns when none of them is leaving. Throws EmbeddedError
   * `in_use_elsewhere` when one of them is in another container: neither sees the other's
   * processes, and PostgreSQL would start a second server on the same files.
   */
  static async enter(dir: string, signal: AbortSignal): Promise<Presence> {
    const presence = new Presence(dir);
    await presence.#listen();
    try {
      const others = await presence.#askOthers(signal, "until it has left");
      if (others.some(isElsewhere)) throw inUseElsewhere(dir);
      return presence;
    } catch (error) {
      await presence.close();
      throw error;
    }
  }

  /** Says from now on that this sidecar leaves, and returns whether another one stays. */
  async leave(): Promise<boolean> {
    this.#word = "leaving";
    return (await this.#askOthers()).some((other) => other?.word === "here");
  }

  /** Has left: those who waited for it go on. */
  async close(): Promise<void> {
    for (const socket of this.#waiting) socket.destroy();
    this.#listener.close();
    await rm(join(this.#dir, this.#name), { force: true });
  }

  async #listen(): Promise<void> {
    // For root and the account of the server alike; who else there is can't enter the directory.
    this.#listener.listen({
      path: join(this.#dir, this.#name),
      readableAll: true,
      writableAll: true,
    });
    await once(this.#listener, "listening");
  }

  #answer(socket: Socket): void {
    socket.unref().on("error", () => socket.destroy());
    const answer = `${this.#word} ${ownNamespace}`;
    if (this.#word === "here") {
      socket.end(answer);
      return;
    }
    socket.write(answer);
    this.#waiting.add(socket);
    socket.on("close", () => this.#waiting.delete(socket));
  }

  async #askOthers(...how: AskHow): Promise<(Stance | undefined)[]> {
    const names = await readdir(this.#dir);
    const others = names.filter((name) => name !== this.#name && namePattern.test(name));
    return Promise.all(others.map((name) => ask(join(this.#dir, name), ...how)));
  }
}

/**
 * Asks a sidecar for its stance, and with "until it has left" waits for one that is leaving.
 * Undefined: it is gone.
 */
async function ask(path: string, ...[signal, wait]: AskHow): Promise<Stance | undefined> {
  signal?.throwIfAborted();
  let stance: Stance | undefined;
  const socket = connect(path);
  const abort = () => socket.destroy();
  signal?.addEventListener("abort", abort, { once: true });
  socket.setTimeout(answerWithinMs, () => {
    stance ??= silent;
    socket.destroy();
  });
  socket.on("data", (answer) => {
    const [word, namespace] = answer.toString().split(" ");
    stance = { word: word === "leaving" ? "leaving" : "here", namespace };
    if (stance.word === "here" || wait === undefined) socket.destroy();
    else socket.setTimeout(0);
  });
  socket.on("error", (error) => {
    if (goneCodes.has(errorCode(error) ?? "")) forget(path);
    else stance ??= silent;
  });
  await new Promise((resolve) => socket.once("close", resolve));
  signal?.removeEventListener("abort", abort);
  signal?.throwIfAborted();
  return stance;
}

/**
 * Removes the socket of a killed sidecar. A live one may be between bind(2) and listen(2), and
 * refuse for that.
 */
function forget(path: string): void {
  const pid = Number(namePattern.exec(basename(path))?.[1]);
  if (!isAlive(pid)) rmSync(path, { force: true });
}

/** `pid:[4026531836]`: tells containers on one machine apart. */
function pidNamespace(): string {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return "";
  }
}

function isElsewhere(other: Stance | undefined): boolean {
  if (other?.word !== "here" || other.namespace === undefined) return false;
  return other.namespace !== ownNamespace;
}
