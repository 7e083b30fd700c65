import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Program } from "./worker-process.ts";

const proto = fileURLToPath(new URL("../../proto", import.meta.url));
const script = fileURLToPath(new URL("retrying_worker.py", import.meta.url));
const command = process.env["PLUGIN_STATE_TEST_PYTHON"];

/**
 * On grpcio, where PLUGIN_STATE_TEST_PYTHON is an interpreter with the packages of
 * test/clients/python/requirements.txt.
 */
export const pythonWorker: Program | undefined =
  command === undefined
    ? undefined
    : { command, script, environment: { PYTHONPATH: stubs(command) } };

function stubs(python: string): string {
  const directory = mkdtempSync(join(tmpdir(), "stubs-"));
  const files = readdirSync(join(proto, "pluginstate", "v1"));
  execFileSync(python, [
    ...["-m", "grpc_tools.protoc", "-I", proto],
    ...[`--python_out=${directory}`, `--grpc_python_out=${directory}`],
    ...files.map((file) => join(proto, "pluginstate", "v1", file)),
  ]);
  return directory;
}
