import { createRequire } from "node:module";
import { ExitCode, StartError } from "../start-error.ts";
import { hasGrpcCallInternals } from "./grpc-call.ts";
import { hasGrpcServerInternals } from "./grpc-server.ts";
import { hasSocketBeneath } from "./tls-socket.ts";

/** One private inside, whose absence would lose a bound. */
export interface Inside {
  /** Of which program, with its version. */
  readonly of: () => string;
  /** What it is needed for: "to bound …". */
  readonly purpose: string;
  readonly isThere: () => boolean;
}

const grpcJs = () => `@grpc/grpc-js ${versionOf("@grpc/grpc-js")}`;

const insides: readonly Inside[] = [
  {
    of: grpcJs,
    purpose: "bound connections, headers and the age of calls",
    isThere: hasGrpcServerInternals,
  },
  { of: grpcJs, purpose: "bound what calls hold", isThere: hasGrpcCallInternals },
  {
    of: () => `Node.js ${process.versions.node}`,
    purpose: "bound how long a TLS handshake takes",
    isThere: hasSocketBeneath,
  },
];

let isChecked = false;

/**
 * Looks once whether the private insides that this folder reaches into are where they are looked for.
 *
 * @throws {StartError} which names the program that hasn't got them.
 */
export function checkInternals(): void {
  if (isChecked) return;
  requireInsides(insides);
  isChecked = true;
}

/** @throws {StartError} which names the first one that isn't there. */
export function requireInsides(required: readonly Inside[]): void {
  const missing = required.find(({ isThere }) => !isThere());
  if (missing === undefined) return;
  throw new StartError(
    "DEPENDENCY_UNUSABLE",
    `${missing.of()} isn't a version that this release knows: it lacks what is needed to ${missing.purpose}`,
    {
      exitCode: ExitCode.configuration,
      hint: "Install the versions that the package names; docs/internals.md says which were tried.",
    },
  );
}

function versionOf(dependency: string): string {
  const { version } = createRequire(import.meta.url)(`${dependency}/package.json`);
  return String(version);
}
