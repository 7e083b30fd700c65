// Loaded into the sidecar by `node --import`: grpc-js as another version of it might be.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { BaseServerInterceptingCall } = require("@grpc/grpc-js/build/src/server-interceptors.js");
delete BaseServerInterceptingCall.prototype.handleDataFrame;
