import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { sqlState } from "../../src/postgres/errors.ts";
import { scopeKinds } from "../../src/state/entry.ts";
import type { TestClient } from "../support/client.ts";
import { type ForeignWriter, foreignWriter } from "../support/foreign-writer.ts";
import type {
  ExternalTransaction,
  ForeignWrite,
  History,
  Name,
  Outcome,
  Recorded,
  Request,
  ServiceRequest,
} from "./operation.ts";
import { jsonOf, perform, wireName } from "./perform.ts";

/**
 * Records calls with their times. The clock is a count of beginnings and ends: all clients are in this
 * process, so their order is known exactly.
 */
export class Recorder {
  readonly operations: Recorded[] = [];
  #ticks = 0;

  async record(client: string, request: Request, act: () => Promise<Outcome>): Promise<Outcome> {
    this.#ticks += 1;
    const invokedAt = this.#ticks;
    const outcome = await act();
    this.#ticks += 1;
    const id = this.operations.length;
    this.operations.push({ id, client, invokedAt, completedAt: this.#ticks, request, outcome });
    return outcome;
  }

  /** Records what was done between one beginning and one end. */
  async recordTogether(
    client: string,
    act: () => Promise<readonly (readonly [Request, Outcome])[]>,
  ): Promise<void> {
    this.#ticks += 1;
    const invokedAt = this.#ticks;
    const done = await act();
    this.#ticks += 1;
    for (const [request, outcome] of done) {
      const id = this.operations.length;
      this.operations.push({ id, client, invokedAt, completedAt: this.#ticks, request, outcome });
    }
  }

  history(initialRevision: bigint, finalRevision: bigint): History {
    return { operations: this.operations, initialRevision, finalRevision };
  }
}

/** A client of a sidecar whose calls are recorded. */
export class RecordedClient {
  readonly #recorder: Recorder;
  readonly #name: string;
  readonly #client: TestClient;

  constructor(recorder: Recorder, name: string, client: TestClient) {
    this.#recorder = recorder;
    this.#name = name;
    this.#client = client;
  }

  call(request: ServiceRequest): Promise<Outcome> {
    return this.#recorder.record(this.#name, request, () => perform(this.#client, request));
  }
}

/** A program that writes the table by plain SQL, on a connection of its own, recorded. */
export class RecordedExternalWriter {
  readonly #recorder: Recorder;
  readonly #name: string;
  readonly #query: pg.Pool["query"];
  readonly #writer: ForeignWriter;
  readonly #pluginId: string;

  constructor(recorder: Recorder, name: string, query: pg.Pool["query"], pluginId: string) {
    this.#recorder = recorder;
    this.#name = name;
    this.#query = query;
    this.#writer = foreignWriter(query, pluginId);
    this.#pluginId = pluginId;
  }

  /**
   * Writes in one transaction, and looks before and after: what it sees there bounds the writes' revisions, and
   * mostly tells them.
   */
  async write({ writes, heldMs, isRolledBack }: ExternalTransaction): Promise<void> {
    await this.#look(writes);
    await this.#recorder.recordTogether(this.#name, async () => {
      const done: [ForeignWrite, Outcome][] = [];
      await this.#query("begin");
      for (const write of writes) {
        done.push([write, await this.#perform(write)]);
      }
      if (heldMs > 0) {
        await sleep(heldMs);
      }
      await this.#query(isRolledBack ? "rollback" : "commit");
      return isRolledBack ? [] : done;
    });
    await this.#look(writes);
  }

  async #perform(write: ForeignWrite): Promise<Outcome> {
    const name = wireName(write.name);
    if (write.do === "foreignUpsert") {
      await this.#writer.upsert(name, JSON.stringify(write.value));
      return { kind: "ok", reply: { do: "foreignUpsert" } };
    }
    return { kind: "ok", reply: { do: "foreignDelete", existed: await this.#writer.delete(name) } };
  }

  async #look(writes: readonly ForeignWrite[]): Promise<void> {
    for (const { name } of writes) {
      const request = { do: "get", name } as const;
      await this.#recorder.record(this.#name, request, () => this.#get(name));
    }
  }

  /** As a sidecar reads. */
  async #get(name: Name): Promise<Outcome> {
    const { scope, namespace, key } = wireName(name);
    const place = [scopeKinds[scope.kind - 1], scope.id || null, namespace || "default", key];
    for (;;) {
      const { rows } = await this.#query<{ plugin: string; revision: string; value: string }>(
        `select plugin_revision as plugin, revision, value
           from plugin_sidecar.read_entries($1, array[$2], array[$3], array[$4], array[$5])`,
        [this.#pluginId, ...place],
      );
      const [row] = rows;
      if (row !== undefined) {
        const { plugin, revision, value } = row;
        const entry =
          value === null
            ? undefined
            : { ...name, revision: BigInt(revision), value: jsonOf(value) };
        return { kind: "ok", reply: { do: "get", revision: BigInt(plugin), entry } };
      }
      await this.#settle();
    }
  }
  /** Tries again, as a sidecar does, while somebody holds the counter. */
  async #settle(): Promise<void> {
    try {
      await this.#query("select plugin_sidecar.settle_external_writes($1, false)", [
        this.#pluginId,
      ]);
    } catch (error) {
      if (sqlState(error) !== "55P03") throw error;
    }
  }
}
