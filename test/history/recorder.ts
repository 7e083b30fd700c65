import type pg from "pg";
import { scopeKinds } from "../../src/state/entry.ts";
import type { TestClient } from "../support/client.ts";
import { type ForeignWriter, foreignWriter } from "../support/foreign-writer.ts";
import type {
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

/** A program that reads and writes the table by plain SQL, recorded. */
export class RecordedForeigner {
  readonly #recorder: Recorder;
  readonly #query: pg.Pool["query"];
  readonly #writer: ForeignWriter;
  readonly #pluginId: string;

  constructor(recorder: Recorder, query: pg.Pool["query"], pluginId: string) {
    this.#recorder = recorder;
    this.#query = query;
    this.#writer = foreignWriter(query, pluginId);
    this.#pluginId = pluginId;
  }

  /**
   * Writes, and looks before and after: what it sees there bounds the write's revision, and as nothing
   * else of its own is in between, mostly tells it.
   */
  async write(request: ForeignWrite): Promise<void> {
    await this.#get(request.name);
    await this.#recorder.record("foreign", request, async () => {
      if (request.do === "foreignUpsert") {
        await this.#writer.upsert(wireName(request.name), JSON.stringify(request.value));
        return { kind: "ok", reply: { do: "foreignUpsert" } };
      }
      const existed = await this.#writer.delete(wireName(request.name));
      return { kind: "ok", reply: { do: "foreignDelete", existed } };
    });
    await this.#get(request.name);
  }

  async #get(name: Name): Promise<void> {
    await this.#recorder.record("foreign", { do: "get", name }, async () => {
      const { scope, namespace, key } = wireName(name);
      const { rows } = await this.#query<{ plugin: string; revision: string; value: string }>(
        `select r.revision as plugin, s.revision, s.value_json::text as value
           from plugin_sidecar.plugin_revisions r
           left join plugin_sidecar.plugin_state s
             on s.plugin_id = r.plugin_id and s.scope_kind = $2 and s.namespace = $3
                and s.state_key = $4 and coalesce(s.scope_id, '') = $5
          where r.plugin_id = $1`,
        [this.#pluginId, scopeKinds[scope.kind - 1], namespace || "default", key, scope.id],
      );
      const { plugin, revision, value } = rows[0]!;
      const entry =
        value === null ? undefined : { ...name, revision: BigInt(revision), value: jsonOf(value) };
      return { kind: "ok", reply: { do: "get", revision: BigInt(plugin), entry } };
    });
  }
}
