/** A scrape, parsed. */
export interface ParsedMetrics {
  /** Type of each metric, by the name it is declared with. */
  readonly types: ReadonlyMap<string, string>;
  /** The value of a sample with exactly these labels; undefined for none. */
  value(name: string, labels: Readonly<Record<string, string>>): number | undefined;
}

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/y;

/**
 * Parses Prometheus' text format 0.0.4 and throws for what a server of it would not take: a line of no known form, a
 * sample of an undeclared metric, the same sample twice, a missing end of line, a histogram whose buckets go down.
 */
export function parseMetrics(text: string): ParsedMetrics {
  if (!text.endsWith("\n")) throw new Error("the last line has no end");
  const types = new Map<string, string>();
  const samples = new Map<string, number>();
  const buckets = new Map<string, number>();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("# HELP ")) continue;
    const declared = new RegExp(`^# TYPE (${NAME}) (counter|gauge|histogram|summary|untyped)$`).exec(line);
    if (declared !== null) {
      if (types.has(declared[1]!)) throw new Error(`declared twice: ${line}`);
      types.set(declared[1]!, declared[2]!);
      continue;
    }
    const sample = new RegExp(`^(${NAME})(?:\\{(.*)\\})? (\\S+)$`).exec(line);
    if (sample === null) throw new Error(`neither a comment nor a sample: ${line}`);
    const [, name, labelText = "", number] = sample;
    const family = name!.replace(/_(?:bucket|sum|count)$/, "");
    if (!types.has(name!) && !types.has(family)) throw new Error(`not declared: ${line}`);
    const value = Number(number!.replace(/^([+-]?)Inf$/, "$1Infinity"));
    if (Number.isNaN(value) && number !== "NaN" && number !== "Nan") throw new Error(`no number: ${line}`);
    const labels = labelsOf(labelText);
    const key = keyOf(name!, labels);
    if (samples.has(key)) throw new Error(`twice: ${line}`);
    samples.set(key, value);
    if (name!.endsWith("_bucket") && types.get(family) === "histogram") {
      const { le: _le, ...rest } = labels;
      const series = keyOf(name!, rest);
      if (value < (buckets.get(series) ?? 0)) throw new Error(`buckets go down: ${line}`);
      buckets.set(series, value);
    }
  }
  return { types, value: (name, labels) => samples.get(keyOf(name, labels)) };
}

function labelsOf(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  LABEL.lastIndex = 0;
  while (LABEL.lastIndex < text.length) {
    const label = LABEL.exec(text);
    if (label === null) throw new Error(`labels of no known form: ${text}`);
    labels[label[1]!] = label[2]!;
  }
  return labels;
}

function keyOf(name: string, labels: Readonly<Record<string, string>>): string {
  return JSON.stringify([name, Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))]);
}
