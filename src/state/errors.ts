/**
 * What can go wrong, in the domain's own words: no gRPC code, no SQL. Ordinary outcomes (an entry
 * that isn't there) are values, not errors.
 */
export abstract class StateError extends Error {
  override readonly name = this.constructor.name;
}

/** A field of the request is missing, malformed or not supported. */
export class InvalidField extends StateError {
  /** The field's path as the proto spells it, such as `scope.id`. */
  readonly field: string;
  /** What is wrong, without the field's content, to follow the path: `must not be empty`. */
  readonly problem: string;

  constructor(field: string, problem: string) {
    super(`${field} ${problem}`);
    this.field = field;
    this.problem = problem;
  }
}

/** A value isn't JSON, or jsonb can't keep it exactly. */
export class InvalidValue extends StateError {
  readonly field: string;
  readonly problem: string;
  /** Where, in UTF-16 code units from the start of the text; undefined if only the database knows. */
  readonly offset: number | undefined;

  constructor(field: string, problem: string, offset?: number) {
    super(
      offset === undefined ? `${field}: ${problem}` : `${field}: ${problem} (at offset ${offset})`,
    );
    this.field = field;
    this.problem = problem;
    this.offset = offset;
  }
}

/** A field is larger than its bound. */
export class TooLarge extends StateError {
  readonly field: string;
  /** Bytes it has. */
  readonly size: number;
  /** Bytes it may have. */
  readonly limit: number;

  constructor(field: string, size: number, limit: number) {
    super(`${field} has ${size} bytes, of at most ${limit}`);
    this.field = field;
    this.size = size;
    this.limit = limit;
  }
}

/** A stored value, written by another program, is larger than the sidecar reads. */
export class TooLargeToRead extends StateError {
  /** Bytes a value's text may have. */
  readonly limit: number;

  constructor(limit: number) {
    super(`a value is larger than the ${limit} bytes that are read`);
    this.limit = limit;
  }
}

/** The plugin isn't, or is no longer, in the host's registry. */
export class PluginNotRegistered extends StateError {
  /** The plugin's id or key, as the binding names it. */
  readonly plugin: string;

  constructor(plugin: string) {
    super(`plugin ${plugin} is not registered`);
    this.plugin = plugin;
  }
}

/** The database can't be reached, or refuses; nothing was written. Worth trying again. */
export class DatabaseUnavailable extends StateError {
  constructor(options?: ErrorOptions) {
    super("the database can't be reached; nothing was written", options);
  }
}

/** The connection broke after a write was sent: it may or may not have happened. */
export class OutcomeUnknown extends StateError {
  constructor(options?: ErrorOptions) {
    super(
      "the connection to the database broke while the write was under way: it may have happened",
      options,
    );
  }
}

/** More calls are waiting than may. Worth trying again later. */
export class Overloaded extends StateError {
  constructor() {
    super("too many calls are waiting");
  }
}

/** The sidecar is shutting down; nothing was written. */
export class ShuttingDown extends StateError {
  constructor() {
    super("the sidecar is shutting down");
  }
}
