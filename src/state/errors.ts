import type { Revision, ScopeKind } from "./entry.ts";
import type { Capability } from "./permissions.ts";
import type { Condition, Failure } from "./requests.ts";

/**
 * What can go wrong, in the domain's own words: no gRPC code, no SQL. Ordinary outcomes (an entry
 * that isn't there) are values, not errors.
 */
export abstract class StateError extends Error {
  override readonly name = this.constructor.name;
  /** Whether one call is to blame, and others that were made together with it aren't. */
  readonly isOneCallsFault: boolean = false;
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

  /** The same of a part of a request. */
  within(path: string): InvalidField {
    return new InvalidField(`${path}.${this.field}`, this.problem);
  }
}

/** A value isn't JSON, or jsonb can't keep it exactly. */
export class InvalidValue extends StateError {
  override readonly isOneCallsFault = true;
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

  /** The same of a part of a request. */
  within(path: string): InvalidValue {
    return new InvalidValue(`${path}.${this.field}`, this.problem, this.offset);
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

  /** The same of a part of a request. */
  within(path: string): TooLarge {
    return new TooLarge(`${path}.${this.field}`, this.size, this.limit);
  }
}

/** A stored value, or several that were asked for at once, are larger than the sidecar reads. */
export class TooLargeToRead extends StateError {
  override readonly isOneCallsFault = true;
  /** Bytes of text, at most. */
  readonly limit: number;

  constructor(limit: number) {
    super(`what was asked for is larger than the ${limit} bytes that are read at once`);
    this.limit = limit;
  }
}

/** A write's condition doesn't hold; nothing was written. */
export class ConditionLost extends StateError {
  readonly condition: Condition;
  /** The entry's revision; undefined when there is no such entry. */
  readonly current: Revision | undefined;

  constructor(condition: Condition, current: Revision | undefined) {
    const found = current === undefined ? "there is none" : `its revision is ${current}`;
    super(`the entry isn't as the condition says: ${found}`);
    this.condition = condition;
    this.current = current;
  }
}

/** An update's change doesn't go with the value there is; nothing was written. */
export class WrongType extends StateError {
  readonly current: Revision | undefined;

  constructor(current: Revision | undefined) {
    super("the value there is is of another type than the change is for");
    this.current = current;
  }
}

/** A number would leave its bounds; nothing was written. */
export class OutOfBounds extends StateError {
  readonly current: Revision | undefined;

  constructor(current: Revision | undefined) {
    super("the result would be out of bounds");
    this.current = current;
  }
}

/** Parts of a write of several failed; nothing was written. */
export class ChecksFailed extends StateError {
  readonly failures: readonly Failure[];

  constructor(failures: readonly Failure[]) {
    const parts = failures.map(({ part, index }) => `${part}s[${index}]`);
    const named = parts.length > 10 ? [...parts.slice(0, 10), "…"] : parts;
    super(`nothing was done, because of ${named.join(", ")}`);
    this.failures = failures;
  }
}

/** The plugin would have more than it may; nothing was written. */
export class QuotaExceeded extends StateError {
  readonly quota: "entries" | "bytes";
  /** What the plugin has. */
  readonly used: bigint;
  /** What the write would add. */
  readonly asked: bigint;
  readonly limit: number;

  constructor(quota: "entries" | "bytes", used: bigint, asked: bigint, limit: number) {
    super(`the plugin has ${used} ${quota} of at most ${limit}, and this would add ${asked}`);
    this.quota = quota;
    this.used = used;
    this.asked = asked;
    this.limit = limit;
  }
}

/** A request id was used for another request; nothing was written. */
export class RequestIdReusedError extends StateError {
  constructor() {
    super("request_id was used for another request");
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

/** The binding doesn't allow what the call needs; nothing was read or written. */
export class CapabilityDenied extends StateError {
  readonly capability: Capability;

  constructor(capability: Capability) {
    super(`this listener doesn't allow ${capability}`);
    this.capability = capability;
  }
}

/** The binding doesn't allow a scope that the call names; nothing was read or written. */
export class ScopeDenied extends StateError {
  readonly kind: ScopeKind;

  constructor(kind: ScopeKind) {
    super(`this listener doesn't allow that scope of kind ${kind}`);
    this.kind = kind;
  }
}

/** The database can't be reached, or refuses; nothing was written. Worth trying again. */
export class DatabaseUnavailable extends StateError {
  constructor(options?: ErrorOptions) {
    super("the database can't be reached, or refuses; nothing was written", options);
  }
}

/** The connection broke after a write was sent: it may or may not have happened. */
export class OutcomeUnknown extends StateError {
  constructor(
    options?: ErrorOptions,
    message = "the connection to the database broke while the write was under way: it may have happened",
  ) {
    super(message, options);
  }
}

/** More calls are waiting than may. Worth trying again later. */
export class Overloaded extends StateError {
  constructor(message = "too many calls are waiting") {
    super(message);
  }
}

/** The sidecar is shutting down; nothing was written. */
export class ShuttingDown extends StateError {
  constructor() {
    super("the sidecar is shutting down");
  }
}
