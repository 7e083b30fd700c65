import { once } from "node:events";
import {
  type BigIntStats,
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  unlinkSync,
} from "node:fs";
import { connect, type Server } from "node:net";
import { dirname, join, sep } from "node:path";
import type { ListenAddress } from "./listen-address.ts";
import { errorCode, ListenError } from "./listen-error.ts";

type UnixAddress = ListenAddress & { kind: "unix" };

/** The system's room for a socket's path, less the closing NUL. A longer one would be cut off. */
const maxPathBytes = process.platform === "darwin" ? 103 : 107;

/** Each round means somebody else took or left the path meanwhile; so many can't happen by chance. */
const maxAttempts = 10;

/**
 * Binds `server` to a socket file of mode 0600, in a directory that is made (0700) if it's missing.
 * A dead socket file in the way is replaced; a live one, or a file of another kind, is left alone
 * and thrown as {@link ListenError}. Returns what removes the file, if it's still ours.
 *
 * The socket is born in a private directory and gets its name when it's ready:
 * - nobody can connect before its mode is 0600, and the process's umask isn't touched;
 * - naming it is `link`, which never replaces anything, so of several starters one gets the path;
 * - libuv unlinks the path it bound when it closes, whoever owns it by then; here that's the
 *   birthplace, long gone. (It's also what `ss -xl` shows.)
 */
export async function bindUnixSocket(server: Server, address: UnixAddress): Promise<() => void> {
  const directory = dirname(address.path);
  refuseLongPath(address, join(directory, ".XXXXXX", "s"));
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const birthplace = mkdtempSync(`${directory}${sep}.`);
  try {
    const born = join(birthplace, "s");
    server.listen({ path: born });
    await once(server, "listening");
    chmodSync(born, 0o600);
    const own = look(born);
    await publish(born, address, birthplace);
    return () => {
      if (isSame(look(address.path), own)) unlinkSync(address.path);
    };
  } finally {
    rmSync(birthplace, { recursive: true, force: true });
  }
}

function refuseLongPath(address: UnixAddress, birthName: string): void {
  const bytes = Math.max(Buffer.byteLength(address.path), Buffer.byteLength(birthName));
  if (bytes <= maxPathBytes) return;
  const why = `it needs ${bytes} bytes, and a socket's path may take ${maxPathBytes}`;
  throw new ListenError(address, "path_too_long", why);
}

async function publish(born: string, address: UnixAddress, scratch: string): Promise<void> {
  for (let attempt = 0; attempt < maxAttempts; attempt++) {
    if (tryLink(born, address.path)) return;
    await clearAway(address, join(scratch, `dead-${attempt}`));
  }
  throw new ListenError(address, "address_in_use", "other processes keep taking it");
}

/**
 * Clears a dead socket out of the way, or throws if what's there isn't one. Two starters may both
 * have found the same dead file, and the first may have put its own in place before the second
 * removes it. POSIX can't remove a file on condition, so it is renamed away, looked at, and put back
 * if it isn't the one that was probed. The look before makes that a matter of microseconds, and only
 * a third starter within them could take the name.
 */
async function clearAway(address: UnixAddress, grave: string): Promise<void> {
  const { path } = address;
  const found = look(path);
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new ListenError(address, "not_a_socket", "there is a file that isn't a socket");
  }
  if (await answers(path)) {
    throw new ListenError(address, "address_in_use", "another process is listening there");
  }
  if (!isSame(look(path), found) || !tryRename(path, grave)) return;
  if (!isSame(look(grave), found)) tryLink(grave, path);
}

/** Whether anybody listens on the socket. Only a refusal proves that nobody does. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", (error) => resolve(!["ECONNREFUSED", "ENOENT"].includes(errorCode(error))));
  });
}

function look(path: string): BigIntStats | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false });
}

/** One file under whatever name. Inode numbers are used again; together with the time they aren't. */
function isSame(one: BigIntStats | undefined, other: BigIntStats | undefined): boolean {
  if (one === undefined || other === undefined) return false;
  return one.ino === other.ino && one.dev === other.dev && one.mtimeNs === other.mtimeNs;
}

/** Gives a file a second name; false if the name is taken. */
function tryLink(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if (errorCode(error) === "EEXIST") return false;
    if (look(to) !== undefined) return false;
    // A file system without hard links. Looking first is the best there is: rename replaces.
    renameSync(from, to);
    return true;
  }
}

function tryRename(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}
