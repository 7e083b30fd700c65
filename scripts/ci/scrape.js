// Calls the sidecar at PLUGIN_STATE_ADDRESS and saves what it then exports: node scripts/ci/scrape.js SOCKET FILE
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { request } from "node:http";
import { text } from "node:stream/consumers";
import { generateLoad } from "../../bench/load/generator.js";

const [, , socketPath, file = ""] = process.argv;
const address = process.env["PLUGIN_STATE_ADDRESS"] ?? "";
const { errors } = await generateLoad({
  address,
  payloads: { kind: "pluginstate", rpcs: { Get: 0.5, Set: 0.5 } },
  inFlight: 16,
  seconds: 60,
  count: 1_000,
});
if (errors !== 0) throw new Error(`${errors} calls failed`);

const asked = request({ socketPath, path: "/metrics" }).end();
const [response] = await once(asked, "response");
const scraped = await text(response);
if (response.statusCode !== 200) throw new Error(`${response.statusCode}: ${scraped}`);
if (!/^plugin_state_plugin_calls_total\{plugin="demo",code="OK"\} 1000$/m.test(scraped)) {
  throw new Error(`not the calls that were made:\n${scraped}`);
}
writeFileSync(file, scraped);
