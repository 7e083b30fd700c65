import type { ListenAddress } from "../../src/rpc/listen-address.ts";

/** Metrics on a free port. */
export const anyPort: ListenAddress = { kind: "tcp", host: "127.0.0.1", port: 0 };

/** One line of the text format. */
export interface ScrapedSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** What a scrape said. */
export interface Scrape {
  readonly text: string;
  readonly samples: readonly ScrapedSample[];
  /** By metric: what HELP and TYPE say. */
  readonly help: ReadonlyMap<string, string>;
  readonly types: ReadonlyMap<string, string>;
  /** The value of the one sample with these labels; undefined when there is none. */
  value(name: string, labels?: Record<string, string>): number | undefined;
}

/** Asks for the metrics at an address, as Prometheus does. */
export async function scrape(address: string | undefined): Promise<Scrape> {
  const response = await fetch(`http://${address}/metrics`);
  if (response.status !== 200) {
    throw new Error(`scrape: ${response.status}`);
  }
  return parseScrape(await response.text());
}

const sampleLine = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const labelPair = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** Reads the text format. */
export function parseScrape(text: string): Scrape {
  const samples: ScrapedSample[] = [];
  const help = new Map<string, string>();
  const types = new Map<string, string>();
  for (const line of text.split("\n")) {
    const [, kind, metric = "", rest = ""] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? [];
    if (kind !== undefined) {
      (kind === "HELP" ? help : types).set(metric, rest);
    } else if (line !== "") {
      const [, name, labels = "", value] = sampleLine.exec(line) ?? [];
      if (name === undefined) {
        throw new Error(`not the text format: ${line}`);
      }
      const pairs = [...labels.matchAll(labelPair)].map(([, key, text]) => [key, text]);
      samples.push({ name, labels: Object.fromEntries(pairs), value: Number(value) });
    }
  }
  const value: Scrape["value"] = (name, wanted = {}) =>
    samples.find(
      (sample) =>
        sample.name === name &&
        Object.entries(wanted).every(([label, text]) => sample.labels[label] === text),
    )?.value;
  return { text, samples, help, types, value };
}
