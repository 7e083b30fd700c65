import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { StatementsSeen } from "./statements-seen.ts";

/**
 * What is to happen at the next run of a statement: to it, or when it is done to its reply. `pass` lets it
 * go on after all.
 */
interface Fault {
  readonly statement: string;
  readonly at: "request" | "reply";
  readonly happen: (pass: () => void) => void;
}

/** What of a connection is lost. */
interface Silence {
  readonly requests: boolean;
  readonly replies: boolean;
}

interface Delay {
  readonly latencyMs: number;
  readonly jitterMs: number;
}

const portIsFreeWithinMs = 10_000;

function socketOf(databaseUrl: string): string {
  const url = new URL(databaseUrl);
  return `${url.searchParams.get("host")}/.s.PGSQL.${url.port}`;
}

/** A TCP proxy in front of a database, through which a network can fail. */
export class FaultProxy implements AsyncDisposable {
  readonly #server: Server;
  #target: string;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  readonly #statements: string[] = [];
  readonly #host: string;
  #silent: Silence = { requests: false, replies: false };
  #delay: Delay = { latencyMs: 0, jitterMs: 0 };
  #beforeReply: (() => void) | undefined;
  #fault: Fault | undefined;

  private constructor(server: Server, host: string, target: string) {
    this.#server = server;
    this.#host = host;
    this.#target = target;
    server.on("connection", (socket) => this.#pair(socket));
  }

  /** Listens in front of the server of a database URL with a unix socket directory as its host. */
  static async before(
    databaseUrl: string,
    { host = "127.0.0.1", port = 0 } = {},
  ): Promise<FaultProxy> {
    const server = createServer({ noDelay: true });
    const proxy = new FaultProxy(server, host, socketOf(databaseUrl));
    server.listen(port, host);
    await once(server, "listening");
    return proxy;
  }

  /** The database URL that leads through the proxy. */
  through(databaseUrl: string): string {
    const url = new URL(databaseUrl);
    url.searchParams.delete("host");
    url.hostname = this.#host;
    url.port = String(this.port);
    return url.href;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** Connections open now. */
  get connections(): number {
    return this.#pairs.size;
  }

  /** What was run since this was last asked: prepared statements by name, others by their text. */
  takeStatements(): string[] {
    return this.#statements.splice(0);
  }

  /** Cuts every connection; new ones are made as before. */
  cut(): void {
    for (const [client, upstream] of this.#pairs) {
      client.resetAndDestroy();
      upstream.destroy();
    }
  }

  /** Cuts every connection, and refuses new ones until `open`. */
  async close(): Promise<void> {
    this.#lastPort = this.port;
    this.#server.close();
    this.cut();
    await once(this.#server, "close");
  }

  #lastPort = 0;

  /** Listens again, on the same port; when it is free, should somebody have got it meanwhile. */
  async open(): Promise<void> {
    this.resume();
    const endsAt = performance.now() + portIsFreeWithinMs;
    for (;;) {
      try {
        this.#server.listen(this.#lastPort, this.#host);
        await once(this.#server, "listening");
        return;
      } catch (error) {
        if (performance.now() > endsAt) throw error;
        await pause(20);
      }
    }
  }

  /** From now on bytes go nowhere, in both directions or in one, and nobody is told. */
  silence({ requests = true, replies = true } = {}): void {
    this.#silent = { requests, replies };
  }

  /** From now on every packet takes so long, and up to so much longer. */
  slowDown(latencyMs: number, jitterMs = 0): void {
    this.#delay = { latencyMs, jitterMs };
  }

  /** New connections lead to another server; those there are stay. */
  switchTo(databaseUrl: string): void {
    this.#target = socketOf(databaseUrl);
  }

  /** Bytes flow again on new connections; those that were silent stay so, as after a real outage. */
  resume(): void {
    this.#silent = { requests: false, replies: false };
  }

  /** Lets requests pass, and cuts everything at the next reply: what was asked has happened. */
  cutAtNextReply(): void {
    this.#beforeReply = () => this.cut();
  }

  /** Cuts everything at the next run of a statement, before it reaches the database: it doesn't happen. */
  cutBefore(statement: string, happen = () => this.cut()): void {
    this.#fault = { statement, at: "request", happen };
  }

  /** Cuts everything at the next reply to a statement: what was asked has happened. */
  cutAfter(statement: string, happen = () => this.cut()): void {
    this.#fault = { statement, at: "reply", happen };
  }

  /** Keeps the next run of a statement from the database, until the function that is returned is called. */
  holdBefore(statement: string): () => void {
    const held: (() => void)[] = [];
    this.#fault = { statement, at: "request", happen: (pass) => void held.push(pass) };
    return () => {
      for (const pass of held) pass();
    };
  }

  /** Forgets what was to happen. */
  spare(): void {
    this.#fault = undefined;
    this.#beforeReply = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) {
      await this.close();
    }
  }

  #pair(client: Socket): void {
    const upstream = connect({ path: this.#target });
    const pair = [client, upstream] as const;
    this.#pairs.add(pair);
    const end = () => {
      this.#pairs.delete(pair);
      client.destroy();
      upstream.destroy();
    };
    for (const socket of pair) {
      socket.on("error", end);
      socket.on("close", end);
    }
    const lost = { requests: false, replies: false };
    const passes = (direction: keyof Silence) => {
      lost[direction] ||= this.#silent[direction];
      return !lost[direction];
    };
    const toUpstream = this.#delayed(upstream);
    const toClient = this.#delayed(client);
    const seen = new StatementsSeen();
    let fault: Fault | undefined;
    client.on("data", (bytes) => {
      const statements = seen.push(bytes);
      this.#statements.push(...statements);
      fault ??= this.#takeFault(statements);
      if (fault?.at === "request") {
        fault.happen(() => {
          fault = undefined;
          toUpstream(bytes);
        });
      } else if (passes("requests")) {
        toUpstream(bytes);
      }
    });
    upstream.on("data", (bytes) => {
      const happen = fault?.happen ?? this.#beforeReply;
      this.#beforeReply = undefined;
      if (happen !== undefined) {
        happen(() => toClient(bytes));
      } else if (passes("replies")) {
        toClient(bytes);
      }
    });
  }

  /** Writes packets in order, each when its time has come. */
  #delayed(socket: Socket): (bytes: Buffer) => void {
    let lastAt = 0;
    return (bytes) => {
      const { latencyMs, jitterMs } = this.#delay;
      if (latencyMs + jitterMs === 0 && lastAt === 0) {
        socket.write(bytes);
        return;
      }
      const now = performance.now();
      lastAt = Math.max(lastAt, now + latencyMs + Math.random() * jitterMs);
      setTimeout(() => socket.writable && socket.write(bytes), lastAt - now);
    };
  }

  #takeFault(statements: readonly string[]): Fault | undefined {
    const fault = this.#fault;
    if (fault === undefined || !statements.includes(fault.statement)) {
      return undefined;
    }
    this.#fault = undefined;
    return fault;
  }
}
