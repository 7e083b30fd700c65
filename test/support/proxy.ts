import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

/** A TCP proxy in front of a database, through which a network can fail. */
export class FaultProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #target: string;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  #isSilent = false;
  #beforeReply: (() => void) | undefined;

  private constructor(server: Server, target: string) {
    this.#server = server;
    this.#target = target;
    server.on("connection", (socket) => this.#pair(socket));
  }

  /** Listens in front of the server of a database URL with a unix socket directory as its host. */
  static async before(databaseUrl: string): Promise<FaultProxy> {
    const url = new URL(databaseUrl);
    const target = `${url.searchParams.get("host")}/.s.PGSQL.${url.port}`;
    const server = createServer({ noDelay: true });
    const proxy = new FaultProxy(server, target);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return proxy;
  }

  /** The database URL that leads through the proxy. */
  through(databaseUrl: string): string {
    const url = new URL(databaseUrl);
    url.searchParams.delete("host");
    url.hostname = "127.0.0.1";
    url.port = String(this.#port);
    return url.href;
  }

  get #port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** Connections open now. */
  get connections(): number {
    return this.#pairs.size;
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
    this.#lastPort = this.#port;
    this.#server.close();
    this.cut();
    await once(this.#server, "close");
  }

  #lastPort = 0;

  /** Listens again, on the same port. */
  async open(): Promise<void> {
    this.#isSilent = false;
    this.#server.listen(this.#lastPort, "127.0.0.1");
    await once(this.#server, "listening");
  }

  /** From now on bytes go nowhere, and nobody is told. */
  silence(): void {
    this.#isSilent = true;
  }

  /** Bytes flow again on new connections; those that were silent stay so, as after a real outage. */
  resume(): void {
    this.#isSilent = false;
  }

  /** Lets requests pass, and cuts everything at the next reply: what was asked has happened. */
  cutAtNextReply(): void {
    this.#beforeReply = () => this.cut();
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
    let isLost = false;
    const passes = () => {
      isLost ||= this.#isSilent;
      return !isLost;
    };
    client.on("data", (bytes) => passes() && upstream.write(bytes));
    upstream.on("data", (bytes) => {
      const hook = this.#beforeReply;
      this.#beforeReply = undefined;
      if (hook !== undefined) {
        hook();
      } else if (passes()) {
        client.write(bytes);
      }
    });
  }
}
