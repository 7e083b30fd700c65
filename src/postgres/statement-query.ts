import { prepareValue } from "pg/lib/utils.js";
import type { Statement } from "./statements.ts";

/** What pg's connection can be told; its types don't say. pg-cursor and pg-query-stream do the same. */
interface WireConnection {
  readonly stream: { cork(): void; uncork(): void };
  readonly parsedStatements: Readonly<Record<string, string | undefined>>;
  readonly submittedNamedStatements: Record<string, string | undefined>;
  parse(message: { name: string; text: string }): void;
  bind(message: { statement: string; values: readonly (string | Buffer | null)[] }): void;
  describe(message: { type: "P"; name: string }): void;
  execute(message: { portal: string }): void;
  sync(): void;
}

/** A column of an answer: its name, and what makes a value of its text. */
interface Column {
  readonly name: string;
  readonly parse: (text: string) => unknown;
}

interface RowDescription {
  readonly fields: readonly { readonly name: string; readonly dataTypeID: number }[];
}

/** How a type's texts are read, by its oid. */
export type ParserOf = (oid: number) => (text: string) => unknown;

/**
 * The columns of each statement, learnt from its first answer. A statement is a fixed text, so they are
 * the same for as long as the process lives, on every connection.
 */
export class KnownColumns {
  readonly #columns = new Map<string, readonly Column[]>();
  readonly #parserOf: ParserOf;

  constructor(parserOf: ParserOf) {
    this.#parserOf = parserOf;
  }

  of({ name }: Statement): readonly Column[] | undefined {
    return this.#columns.get(name);
  }

  /** Lets the next run learn them anew: the database is another one than before. */
  forget({ name }: Statement): void {
    this.#columns.delete(name);
  }

  learn({ name }: Statement, { fields }: RowDescription): readonly Column[] {
    const columns = fields.map((field) => ({
      name: field.name,
      parse: this.#parserOf(field.dataTypeID),
    }));
    this.#columns.set(name, columns);
    return columns;
  }
}

/**
 * One run of a statement, as pg's client takes it: what pg's own Query does, without what a statement of
 * ours doesn't need. It isn't described again once its columns are known, which spares the server
 * a message and us the reading of it, and no result object, event emitter or copy is made. Measured
 * beside pg's own in docs/performance.md.
 */
export class StatementQuery {
  /** pg notes under it that the connection has parsed the text; empty: it is parsed for this run. */
  readonly name: string;
  readonly text: string;
  readonly callback: (error: Error | null) => void;
  readonly rows: unknown[] = [];
  readonly #statement: Statement;
  readonly #values: readonly unknown[];
  readonly #known: KnownColumns;
  #columns: readonly Column[] | undefined;
  #failure: Error | undefined;

  constructor(
    statement: Statement,
    values: readonly unknown[],
    isNamed: boolean,
    known: KnownColumns,
    callback: (error: Error | null) => void,
  ) {
    this.name = isNamed ? statement.name : "";
    this.text = statement.text;
    this.callback = callback;
    this.#statement = statement;
    this.#values = values;
    this.#known = known;
    this.#columns = known.of(statement);
  }

  /** Called by pg when the connection is free. An error that is returned ends the query with it. */
  submit(connection: WireConnection): Error | null {
    let values: (string | Buffer | null)[];
    try {
      values = this.#values.map(prepareValue);
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
    connection.stream.cork();
    this.#send(connection, values);
    connection.stream.uncork();
    return null;
  }

  handleRowDescription(message: RowDescription): void {
    this.#columns = this.#known.learn(this.#statement, message);
  }

  handleDataRow({ fields }: { readonly fields: readonly (string | null)[] }): void {
    const columns = this.#columns;
    if (columns?.length !== fields.length) {
      this.#failure ??= new Error(`${this.#statement.name} answered other columns than before`);
      this.#known.forget(this.#statement);
      return;
    }
    this.rows.push(
      this.#statement.rowMode === "array" ? arrayOf(columns, fields) : objectOf(columns, fields),
    );
  }

  handleReadyForQuery(): void {
    this.callback(this.#failure ?? null);
  }

  handleError(error: Error): void {
    this.callback(error);
  }

  handleCommandComplete(): void {}
  handleEmptyQuery(): void {}
  handlePortalSuspended(): void {}
  handleCopyData(): void {}

  #send(connection: WireConnection, values: readonly (string | Buffer | null)[]): void {
    const { name, text } = this;
    const isParsed =
      name !== "" &&
      (connection.parsedStatements[name] ?? connection.submittedNamedStatements[name]) !==
        undefined;
    if (!isParsed) {
      connection.parse({ name, text });
      if (name !== "") connection.submittedNamedStatements[name] = text;
    }
    connection.bind({ statement: name, values });
    if (this.#columns === undefined) connection.describe({ type: "P", name: "" });
    connection.execute({ portal: "" });
    connection.sync();
  }
}

function arrayOf(columns: readonly Column[], fields: readonly (string | null)[]): unknown[] {
  return fields.map((field, index) => (field === null ? null : columns[index]?.parse(field)));
}

function objectOf(
  columns: readonly Column[],
  fields: readonly (string | null)[],
): Record<string, unknown> {
  const row: Record<string, unknown> = {};
  for (const [index, { name, parse }] of columns.entries()) {
    const field = fields[index];
    row[name] = field === null || field === undefined ? null : parse(field);
  }
  return row;
}
