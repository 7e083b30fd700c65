// @ts-check
// A plugin of buf's, see buf.gen.yaml: for one service, functions that read its requests and write its replies
// field by field, with what rpc/wire-input.ts and rpc/wire-output.ts have for each type. Option: service=NAME.

import { ScalarType } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import { createEcmaScriptPlugin, runNodeJs } from "@bufbuild/protoplugin";

/** @import { DescField, DescMessage, DescOneof, DescService } from "@bufbuild/protobuf" */
/** @import { GeneratedFile, Printable } from "@bufbuild/protoplugin" */

const varint = 0;
const lengthDelimited = 2;
/** Tags up to it are one byte. */
const maxFieldNumber = 15;

const plugin = createEcmaScriptPlugin({
  name: "protoc-gen-codec",
  version: "1",
  parseOptions: (options) => ({
    service: options.find(({ key }) => key === "service")?.value ?? "",
  }),
  generateTs: ({ files, options, generateFile }) => {
    for (const file of files) {
      const service = file.services.find(({ typeName }) => typeName === options.service);
      if (service !== undefined) {
        const f = generateFile(`${file.name}_codec.ts`);
        f.preamble(file);
        printService(f, service);
      }
    }
  },
});

/** @param {GeneratedFile} f @param {DescService} service */
function printService(f, service) {
  const methods = service.methods.filter(({ methodKind }) => methodKind === "unary");
  const codec = f.import("ServiceCodec", "../rpc/service-codec.js", true);
  const name = `${service.name[0]?.toLowerCase()}${service.name.slice(1)}Codec`;
  f.print(f.jsDoc(`Reads the requests of ${service.typeName}, and writes its replies.`));
  const type = ["typeof ", f.importSchema(service, true)];
  f.print(f.export("const", name), ": ", codec, "<", ...type, "> = {");
  for (const { localName, input, output } of methods) {
    f.print`  ${localName}: { read: ${reader(input)}, write: ${writer(output)} },`;
  }
  f.print`};`;
  for (const message of withParts(methods.map(({ input }) => input))) printReader(f, message);
  for (const message of withParts(methods.map(({ output }) => output))) printWriter(f, message);
}

/**
 * Messages, and all that are in them, each once.
 *
 * @param {readonly DescMessage[]} messages
 */
function withParts(messages) {
  /** @type {Set<DescMessage>} */
  const found = new Set();
  const add = (/** @type {DescMessage} */ message) => {
    if (!found.has(message)) {
      found.add(message);
      for (const field of message.fields) if (field.message !== undefined) add(field.message);
    }
  };
  messages.forEach(add);
  return found;
}

/** @param {DescMessage} message */
const reader = (message) => `read${message.name}`;
/** @param {DescMessage} message */
const writer = (message) => `write${message.name}`;

/**
 * A function that reads one message: what isn't there has its default.
 *
 * @param {GeneratedFile} f @param {DescMessage} desc
 */
function printReader(f, desc) {
  const input = f.import("WireInput", "../rpc/wire-input.js", true);
  const shape = f.importShape(desc);
  f.print();
  f.print`function ${reader(desc)}(input: ${input}, end: number): ${shape} {`;
  f.print`  const message: ${shape} = {`;
  f.print`    $typeName: ${f.string(desc.typeName)},`;
  for (const member of desc.members) f.print`    ${member.localName}: ${initialOf(member)},`;
  f.print`  };`;
  f.print`  while (input.position < end) {`;
  f.print`    switch (input.tag()) {`;
  for (const field of desc.fields) {
    f.print`      case ${tagOf(field)}:`;
    printRead(f, field);
    f.print`        break;`;
  }
  f.print`      default:`;
  f.print`        input.giveUp();`;
  f.print`    }`;
  f.print`  }`;
  f.print`  input.endAt(end);`;
  f.print`  return message;`;
  f.print`}`;
}

/** The default of a field or oneof. @param {DescField | DescOneof} member */
function initialOf(member) {
  if (member.kind === "oneof") {
    return "{ case: undefined }";
  }
  return member.fieldKind === "list" ? "[]" : kindOf(member).initial;
}

/** @param {GeneratedFile} f @param {DescField} field */
function printRead(f, field) {
  const { part, read } = kindOf(field);
  /** @type {Printable} */
  const value = [read, field.enum === undefined ? "" : [" as ", f.importShape(field.enum)]];
  const { localName, oneof } = field;
  if (field.fieldKind === "list") {
    f.print`        message.${localName}.push(${value});`;
    return;
  }
  if (part !== undefined) {
    // One that comes twice is one of both.
    const known = oneof === undefined ? localName : `${oneof.localName}.case`;
    f.print`        if (message.${known} !== undefined) input.giveUp();`;
  }
  if (oneof === undefined) {
    f.print`        message.${localName} = ${value};`;
  } else {
    f.print`        message.${oneof.localName} = { case: "${localName}", value: ${value} };`;
  }
}

/**
 * A function that writes one message: fields in the order of their numbers, without those that aren't there
 * or have their default.
 *
 * @param {GeneratedFile} f @param {DescMessage} message
 */
function printWriter(f, message) {
  const output = f.import("WireOutput", "../rpc/wire-output.js", true);
  const init = f.import("MessageInitShape", "@bufbuild/protobuf", true);
  const fields = [...message.fields].sort((a, b) => a.number - b.number);
  f.print();
  for (const field of fields) {
    // Most are about as long as the last one.
    if (field.message !== undefined) f.print`let ${lengthOf(field)} = 1;`;
  }
  const shape = [init, "<typeof ", f.importSchema(message, true), ">"];
  f.print("function ", writer(message), "(message: ", ...shape, ", output: ", output, "): void {");
  for (const field of fields) printWrite(f, field);
  f.print`}`;
}

/** @param {GeneratedFile} f @param {DescField} field */
function printWrite(f, field) {
  const value = `message.${field.localName}`;
  if (field.fieldKind === "list") {
    f.print`  if (${value} !== undefined) {`;
    f.print`    for (const item of ${value}) {`;
    printValue(f, field, "item", "      ");
    f.print`    }`;
    f.print`  }`;
    return;
  }
  if (field.oneof !== undefined) {
    const { localName: oneof } = field.oneof;
    f.print`  if (message.${oneof}?.case === "${field.localName}") {`;
    printValue(f, field, `message.${oneof}.value`, "    ");
    f.print`  }`;
    return;
  }
  const hasPresence =
    field.fieldKind === "message" || field.presence !== FeatureSet_FieldPresence.IMPLICIT;
  f.print`  if (${value}${hasPresence ? " !== undefined" : ""}) {`;
  printValue(f, field, value, "    ");
  f.print`  }`;
}

/** @param {GeneratedFile} f @param {DescField} field @param {string} value @param {string} indent */
function printValue(f, field, value, indent) {
  const { part, write } = kindOf(field);
  if (part === undefined) {
    f.print`${indent}${write}(${tagOf(field)}, ${value});`;
    return;
  }
  const length = lengthOf(field);
  f.print`${indent}const left = ${length};`;
  f.print`${indent}const start = output.begin(${tagOf(field)}, left);`;
  f.print`${indent}${write}(${value}, output);`;
  f.print`${indent}${length} = output.end(start, left);`;
}

/** The variable for how many bytes a message's length took. @param {DescField} field */
const lengthOf = ({ parent, localName }) => `${parent.name}_${localName}`;

/** @param {DescField} field */
function tagOf(field) {
  if (field.number > maxFieldNumber) {
    throw new Error(`${nameOf(field)}: tags of two bytes aren't supported`);
  }
  return (field.number << 3) | kindOf(field).wireType;
}

/**
 * How values of a field's type are read and written; part: the message that each is.
 *
 * @param {DescField} field
 * @returns {{ wireType: number, part?: DescMessage, initial: string, read: string, write: string }}
 * @throws Error for a type that the API has had no use for.
 */
function kindOf(field) {
  if (field.fieldKind === "map" || (field.fieldKind === "list" && field.packed)) {
    throw new Error(`${nameOf(field)}: maps and packed lists aren't supported`);
  }
  if (field.message !== undefined) {
    const { message } = field;
    const read = `${reader(message)}(input, input.part(end))`;
    const part = { part: message, initial: "undefined", read, write: writer(message) };
    return { wireType: lengthDelimited, ...part };
  }
  const integer = { wireType: varint, initial: "0", read: "input.int32()", write: "output.int32" };
  if (field.enum !== undefined) {
    return integer;
  }
  switch (field.scalar) {
    case ScalarType.STRING: {
      const text = { initial: '""', read: "input.text(end)", write: "output.text" };
      return { wireType: lengthDelimited, ...text };
    }
    case ScalarType.BOOL:
      return { ...integer, initial: "false", read: "input.bool()", write: "output.bool" };
    case ScalarType.INT32:
      return integer;
    case ScalarType.INT64:
      return { ...integer, initial: "0n", read: "input.int64()", write: "output.int64" };
    default:
      throw new Error(`${nameOf(field)}: its type isn't supported`);
  }
}

/** @param {DescField} field */
const nameOf = (field) => `${field.parent.typeName}.${field.name}`;

runNodeJs(plugin);
