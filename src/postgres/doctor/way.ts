import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import type pg from "pg";
import { type Check, type Examination, type Finding, ok, row, warning } from "./check.ts";
import { say } from "./remedy.ts";

/** That there is a connection, and how long it took. */
export const connection: Check = {
  name: "connection",
  run: async (examination) => {
    const { connectMs, role, database } = examination;
    return ok(`database ${database} answered in ${Math.ceil(connectMs)} ms; role ${role}`);
  },
};

/** Whether others on the way could read or change what is sent. */
export const tls: Check = {
  name: "tls",
  run: async ({ client }) => {
    const stream = streamOf(client);
    return stream instanceof TLSSocket
      ? judgeTls(stream.authorized)
      : judgePlain(stream.remoteAddress);
  },
};

/** pg's types don't show its socket. */
function streamOf(client: pg.Client): Socket {
  return (client as unknown as { connection: { stream: Socket } }).connection.stream;
}

/** @param isVerified Whether the server's certificate is that of an authority that is trusted. */
export function judgeTls(isVerified: boolean): Finding {
  return isVerified
    ? ok("TLS, with a verified certificate")
    : warning(
        "TLS, but the server's certificate isn't verified",
        say(
          "Put sslmode=verify-full in the database URL, and sslrootcert=FILE if the certificate is your own.",
        ),
      );
}

/** @param address Of the server; a unix socket has none. */
export function judgePlain(address: string | undefined): Finding {
  const isLocal = address === undefined || address === "::1" || /^(::ffff:)?127\./.test(address);
  return isLocal
    ? ok("not needed: the connection stays on this machine")
    : warning(
        "no TLS on a connection to another machine: who sits between can read and change everything",
        say("Put sslmode=verify-full in the database URL."),
      );
}

/** Whether the clocks of both machines agree. Times to live are counted by the database's. */
export const clock: Check = {
  name: "clock",
  run: async (examination) => {
    const { ms, uncertainMs } = await clockSkew(examination);
    const seconds = (Math.ceil(Math.abs(ms) / 100) / 10).toFixed(1);
    if (Math.abs(ms) - uncertainMs <= examination.limits.clockSkewMs) {
      return ok(`the database's clock and this machine's agree within ${seconds} s`);
    }
    const direction = ms > 0 ? "ahead of" : "behind";
    return warning(
      `the database's clock is ${seconds} s ${direction} this machine's`,
      say(
        "Let both follow a time server. Entries expire by the database's clock; logs and deadlines have this machine's.",
      ),
    );
  },
};

async function clockSkew(examination: Examination): Promise<{ ms: number; uncertainMs: number }> {
  const before = Date.now();
  const { ms } = await row<{ ms: string }>(
    examination,
    "select extract(epoch from clock_timestamp()) * 1000 as ms",
  );
  const after = Date.now();
  return { ms: Number(ms) - (before + after) / 2, uncertainMs: (after - before) / 2 };
}
