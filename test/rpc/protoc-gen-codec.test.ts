import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  CodeGeneratorRequestSchema,
  CodeGeneratorResponseSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";

const plugin = fileURLToPath(new URL("../../scripts/protoc-gen-codec.js", import.meta.url));

/** What is generated for a service whose requests have this field, and whose replies are empty. */
function generate(field: { type: Type; number: number; label?: Label }, service = "test.Service") {
  const method = { name: "Ask", inputType: ".test.Request", outputType: ".test.Reply" };
  const file = {
    name: "test.proto",
    package: "test",
    syntax: "proto3",
    messageType: [
      { name: "Request", field: [{ name: "part", label: Label.OPTIONAL, ...field }] },
      { name: "Reply" },
    ],
    service: [{ name: "Service", method: [method] }],
  };
  const request = create(CodeGeneratorRequestSchema, {
    parameter: `service=${service},target=ts`,
    fileToGenerate: [file.name],
    protoFile: [file],
  });
  const input = toBinary(CodeGeneratorRequestSchema, request);
  const { stdout, stderr } = spawnSync(process.execPath, [plugin], { input });
  return { files: fromBinary(CodeGeneratorResponseSchema, stdout).file, said: String(stderr) };
}

test("functions are generated for the service that was named, and for no other", () => {
  const [file] = generate({ type: Type.STRING, number: 15 }).files;
  expect(file?.name).toBe("test_codec.ts");
  expect(file?.content).toContain("ask: { read: readRequest, write: writeReply }");
  expect(generate({ type: Type.STRING, number: 15 }, "test.Other").files).toEqual([]);
});

test.each([
  ["a type", { type: Type.DOUBLE, number: 1 }, "test.Request.part: its type isn't supported"],
  [
    "a packed list",
    { type: Type.INT32, number: 1, label: Label.REPEATED },
    "test.Request.part: maps and packed lists aren't supported",
  ],
  [
    "a number over 15",
    { type: Type.STRING, number: 16 },
    "test.Request.part: tags of two bytes aren't supported",
  ],
])("%s that the API has had no use for is refused", (_what, field, problem) => {
  expect(generate(field)).toEqual({ files: [], said: expect.stringContaining(problem) });
});
