import { rmSync } from "node:fs";

// `rm -rf dist`, on every platform: a renamed source file must not leave its old output behind.
rmSync(new URL("../dist", import.meta.url), { recursive: true, force: true });
