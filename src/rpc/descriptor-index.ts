import { type DescEnum, type DescFile, toBinary } from "@bufbuild/protobuf";
import { nestedTypes } from "@bufbuild/protobuf/reflect";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";

/** Finds protobuf files, those they import included, by all that server reflection asks for. */
export class DescriptorIndex {
  readonly #byName = new Map<string, DescFile>();
  readonly #bySymbol = new Map<string, DescFile>();
  readonly #byExtension = new Map<string, Map<number, DescFile>>();

  constructor(files: readonly DescFile[]) {
    for (const file of withImports(files)) {
      this.#byName.set(protoName(file), file);
      for (const symbol of symbolsOf(file)) this.#bySymbol.set(symbol, file);
      for (const type of nestedTypes(file)) {
        if (type.kind === "extension") {
          this.#extensionsOf(type.extendee.typeName).set(type.number, file);
        } else if (type.kind === "message") {
          this.#extensionsOf(type.typeName);
        }
      }
    }
  }

  /** The file of this name, such as `google/rpc/status.proto`. */
  named(name: string): DescFile | undefined {
    return this.#byName.get(name);
  }

  /** The file that declares this type, service, method, field, oneof, enum value or extension. */
  declaring(symbol: string): DescFile | undefined {
    return this.#bySymbol.get(symbol);
  }

  /** The file that extends a message by this field number. */
  extending(message: string, number: number): DescFile | undefined {
    return this.#byExtension.get(message)?.get(number);
  }

  /** The field numbers by which a message is extended; undefined if there's no such message. */
  extensionNumbers(message: string): number[] | undefined {
    const extensions = this.#byExtension.get(message);
    return extensions && [...extensions.keys()];
  }

  #extensionsOf(message: string): Map<number, DescFile> {
    const extensions = this.#byExtension.get(message) ?? new Map<number, DescFile>();
    this.#byExtension.set(message, extensions);
    return extensions;
  }
}

/** A file and all it imports, directly or not, as serialized FileDescriptorProtos, itself first. */
export function serializeWithImports(file: DescFile): Uint8Array[] {
  return [...withImports([file])].map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
}

function withImports(files: readonly DescFile[], seen = new Set<DescFile>()): Set<DescFile> {
  for (const file of files) {
    if (seen.has(file)) continue;
    seen.add(file);
    withImports(file.dependencies, seen);
  }
  return seen;
}

function protoName(file: DescFile): string {
  return `${file.name}.proto`;
}

function* symbolsOf(file: DescFile): Generator<string> {
  for (const type of nestedTypes(file)) {
    yield type.typeName;
    if (type.kind === "enum") yield* enumValues(type);
    for (const member of membersOf(type)) yield `${type.typeName}.${member.name}`;
  }
}

type AnyType = ReturnType<typeof nestedTypes> extends Iterable<infer T> ? T : never;

function membersOf(type: AnyType): { readonly name: string }[] {
  switch (type.kind) {
    case "message":
      return [...type.fields, ...type.oneofs];
    case "service":
      return type.methods;
    case "enum":
    case "extension":
      return [];
  }
}

/** Enum values are named beside their enum, as in C++, not under it. */
function enumValues(type: DescEnum): string[] {
  const scope = type.typeName.slice(0, -type.name.length);
  return type.values.map((value) => scope + value.name);
}
