import { readFile, stat } from "node:fs/promises";
import { clusterDirs } from "./data-dir.ts";
import { EmbeddedError } from "./embedded-error.ts";

/** An account of the host that runs the server's programs. */
export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** Who runs the server's programs: an account to drop to, or undefined for the sidecar's own. */
export type RunAs = Account | undefined;

/**
 * Chooses who runs the server. PostgreSQL refuses to run as root, so root drops to an account that
 * exists already: the owner of the data, else `postgres`, else `nobody`. No account of the host is
 * made or changed.
 */
export async function chooseAccount(dataDir: string): Promise<RunAs> {
  if (process.geteuid?.() !== 0) return undefined;
  const accounts = parsePasswd(await readFile("/etc/passwd", "utf8").catch(() => ""));
  const account =
    (await ownerOfData(dataDir, accounts)) ??
    accounts.find(({ name }) => name === "postgres") ??
    accounts.find(({ name }) => name === "nobody");
  if (account !== undefined) return account;
  throw new EmbeddedError(
    "no_account",
    "PostgreSQL doesn't run as root, and /etc/passwd has no postgres or nobody",
    {
      hint: `give ${dataDir} to an unprivileged account, start the sidecar as one, or set DATABASE_URL`,
    },
  );
}

/** The uid that owns what the server reads and writes. */
export function serverUid(account: RunAs): number | undefined {
  return account?.uid ?? process.geteuid?.();
}

/**
 * The accounts of an /etc/passwd, without root and without lines that are none (NIS, negative ids).
 */
export function parsePasswd(text: string): Account[] {
  return text.split("\n").flatMap((line) => {
    const [, name, uid, gid] = /^([^:]+):[^:]*:(\d+):(\d+):/.exec(line) ?? [];
    return name === undefined || Number(uid) === 0
      ? []
      : [{ name, uid: Number(uid), gid: Number(gid) }];
  });
}

async function ownerOfData(
  dataDir: string,
  accounts: readonly Account[],
): Promise<Account | undefined> {
  const clusters = await clusterDirs(dataDir);
  for (const path of [...clusters.map((cluster) => cluster.path), dataDir]) {
    const owner = await stat(path).catch(() => undefined);
    if (owner === undefined || owner.uid === 0) continue;
    const known = accounts.find(({ uid }) => uid === owner.uid);
    return known ?? { name: `uid ${owner.uid}`, uid: owner.uid, gid: owner.gid };
  }
  return undefined;
}
