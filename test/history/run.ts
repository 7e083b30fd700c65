import pg from "pg";
import type { TestDatabase } from "../support/database.ts";
import type { TestSidecar } from "../support/sidecar.ts";
import type { History, Recorded } from "./operation.ts";
import { Random } from "./random.ts";
import { RecordedClient, RecordedExternalWriter, Recorder } from "./recorder.ts";
import { manyNames, names, Workload } from "./workload.ts";

/** A random history of a plugin that has no entries yet. */
export interface RunOptions {
  readonly database: TestDatabase;
  /** Of the same plugin. */
  readonly sidecars: readonly TestSidecar[];
  /** Of the same plugin, too, with nothing to do but one BatchGet of many names after the other. */
  readonly reader?: TestSidecar;
  /** How many programs write the table by plain SQL. */
  readonly externalWriters?: number;
  readonly calls: number;
  readonly seed: number;
}

const clientsPerSidecar = 8;

/** The seed to begin with: another one each time, unless one is given to try again. */
export function anySeed(): number {
  return Number(process.env["PLUGIN_STATE_HISTORY_SEED"] ?? Date.now() % 1_000_000_007);
}

/** Lets several clients of each sidecar, and external writers, work on a few entries at once. */
export async function recordHistory(options: RunOptions): Promise<History> {
  const run = new Run(options);
  const initialRevision = await run.pluginRevision();
  await run.work();
  return run.recorder.history(initialRevision, await run.pluginRevision());
}

class Run {
  readonly recorder = new Recorder();
  readonly #options: RunOptions;
  readonly #pluginId: string;

  constructor(options: RunOptions) {
    this.#options = options;
    this.#pluginId = options.sidecars[0]!.sidecar.bindings[0]!.pluginId;
  }

  async work(): Promise<void> {
    const { sidecars, externalWriters = 1 } = this.#options;
    const rows = Array.from({ length: sidecars.length * clientsPerSidecar }, (_, row) => row);
    await Promise.all([
      ...rows.map((row) => this.#client(row)),
      ...Array.from({ length: externalWriters }, (_, number) => this.#externalWriter(number)),
      this.#readMany(),
    ]);
    const reader = new RecordedClient(this.recorder, "reader", sidecars[0]!.client);
    await reader.call({ do: "batchGet", names });
  }

  async pluginRevision(): Promise<bigint> {
    const { database } = this.#options;
    await database.query("select plugin_sidecar.settle_external_writes($1, true)", [
      this.#pluginId,
    ]);
    const [row] = await database.query<{ revision: string }>(
      "select revision from plugin_sidecar.plugin_revisions where plugin_id = $1",
      [this.#pluginId],
    );
    return BigInt(row!.revision);
  }

  /** One call after the other, and now and then one a second time under its request id. */
  async #client(row: number): Promise<void> {
    const random = new Random(this.#options.seed + row);
    const workload = new Workload(random, row);
    const here = this.#recorded(`client-${row}`, row);
    const there = this.#recorded(`client-${row}-again`, row + 1);
    while (!this.#isOver) {
      const request = workload.next();
      const isRepeated = "requestId" in request && random.percent(30);
      if (isRepeated && random.percent(30)) {
        await Promise.all([here.call(request), there.call(request)]);
        continue;
      }
      workload.learn(request, await here.call(request));
      if (isRepeated) {
        await there.call(request);
      }
    }
  }

  /** Reads what nothing else keeps waiting: such BatchGets are two statements, of one snapshot all the same. */
  async #readMany(): Promise<void> {
    const { reader, seed } = this.#options;
    if (reader === undefined) return;
    const client = new RecordedClient(this.recorder, "reads-many", reader.client);
    const random = new Random(seed - 2);
    while (!this.#isOver) {
      await client.call({ do: "batchGet", names: random.oneOf(manyNames) });
    }
  }

  async #externalWriter(number: number): Promise<void> {
    const { database, seed } = this.#options;
    const connection = new pg.Client(database.connection);
    await connection.connect();
    const query = connection.query.bind(connection);
    const name = `external-${number}`;
    const writer = new RecordedExternalWriter(this.recorder, name, query, this.#pluginId);
    const workload = new Workload(new Random(seed - 100 - number), 99 - number);
    while (!this.#isOver) {
      await writer.write(workload.external());
    }
    await connection.end();
  }

  #recorded(name: string, row: number): RecordedClient {
    const { sidecars } = this.#options;
    return new RecordedClient(this.recorder, name, sidecars[row % sidecars.length]!.client);
  }

  get #isOver(): boolean {
    return this.recorder.operations.length >= this.#options.calls;
  }
}

/** How many there were of each kind, so that one can see that all were there. */
export function summaryOf(operations: readonly Recorded[]): string {
  const counts = new Map<string, number>();
  for (const { request, outcome } of operations) {
    const kind = `${request.do} ${outcome.kind}`;
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  return [...counts]
    .map(([kind, count]) => `${kind} ${count}`)
    .sort()
    .join(", ");
}
