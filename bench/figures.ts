/** What one run of a case took, and what is made of several: rows of a table, and ratios between cases. */

const MIB = 1024 * 1024;

/** What a client process says of itself. */
export interface ClientFigures {
  readonly bytes: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** Peak resident memory, in MiB. */
  readonly rssMiB: number;
}

/** One run, of both processes. */
export interface Figures extends ClientFigures {
  readonly serverCpuSeconds: number;
  readonly serverRssMiB: number;
  /** 99th percentile of the server's event-loop delay, in milliseconds. */
  readonly serverDelayMs: number;
}

/** All runs of one case: medians, and for the rate the least and the greatest too. */
export interface Summary {
  readonly name: string;
  readonly runs: number;
  readonly mibPerSecond: { readonly median: number; readonly least: number; readonly greatest: number };
  /** CPU-seconds per GiB. */
  readonly serverCpuPerGiB: number;
  readonly clientCpuPerGiB: number;
  readonly serverRssMiB: number;
  readonly clientRssMiB: number;
  readonly serverDelayMs: number;
}

/** The head of the table whose rows {@link rowOf} makes. */
export const TABLE_HEAD =
  "| case | MiB/s | server CPU-s/GiB | client CPU-s/GiB | server peak RSS MiB | client peak RSS MiB | " +
  "event-loop delay p99 ms |\n| --- | --- | --- | --- | --- | --- | --- |";

/** Makes one of all runs of a case. */
export function summaryOf(name: string, all: readonly Figures[]): Summary {
  const sorted = (pick: (f: Figures) => number) => all.map(pick).sort((a, b) => a - b);
  const median = (pick: (f: Figures) => number) => sorted(pick)[Math.floor(all.length / 2)]!;
  const rate = (f: Figures) => f.bytes / MIB / f.seconds;
  const perGiB = (cpu: (f: Figures) => number) => median((f) => cpu(f) / (f.bytes / MIB / 1024));
  return {
    name,
    runs: all.length,
    mibPerSecond: { median: median(rate), least: sorted(rate)[0]!, greatest: sorted(rate).at(-1)! },
    serverCpuPerGiB: perGiB((f) => f.serverCpuSeconds),
    clientCpuPerGiB: perGiB((f) => f.cpuSeconds),
    serverRssMiB: median((f) => f.serverRssMiB),
    clientRssMiB: median((f) => f.rssMiB),
    serverDelayMs: median((f) => f.serverDelayMs),
  };
}

/** A row of the table. */
export function rowOf(s: Summary): string {
  const { median, least, greatest } = s.mibPerSecond;
  const row = [
    s.name.padEnd(56),
    `${median.toFixed(0)} (${least.toFixed(0)} - ${greatest.toFixed(0)})`,
    s.serverCpuPerGiB.toFixed(2),
    s.clientCpuPerGiB.toFixed(2),
    s.serverRssMiB.toFixed(0),
    s.clientRssMiB.toFixed(0),
    s.serverDelayMs.toFixed(0),
  ];
  return `| ${row.join(" | ")} |`;
}

/** Names of the cases that run side by side. */
export const COMPARED = {
  sdkUpload: "SDK, upload, discarding memory",
  rawHttp2Upload: "raw HTTP/2 with SHA-256, upload",
  rawHttp2PlainUpload: "raw HTTP/2, upload",
  rawHttp1Upload: "raw HTTP/1.1 with SHA-256, upload",
  rawHttp1PlainUpload: "raw HTTP/1.1, upload",
  sdkDownload: "SDK, download, memory",
  rawHttp2Download: "raw HTTP/2 with SHA-256, download",
} as const;

/** The ratios of one run, by their documented names (docs/performance.md); without those whose cases were left out. */
export function ratiosOf(summaries: readonly Summary[]): Record<string, number> {
  const of = (name: string) => summaries.find((s) => s.name === name);
  const rate = (s: Summary) => s.mibPerSecond.median;
  const server = (s: Summary) => s.serverCpuPerGiB;
  const client = (s: Summary) => s.clientCpuPerGiB;
  const { sdkUpload, rawHttp2Upload, rawHttp2PlainUpload, rawHttp1Upload, sdkDownload, rawHttp2Download } = COMPARED;
  const wanted = [
    ["sdkUploadVsRawHttp2", sdkUpload, rawHttp2Upload, rate],
    ["sdkUploadServerCpuVsRawHttp2", sdkUpload, rawHttp2Upload, server],
    ["sdkUploadClientCpuVsRawHttp2", sdkUpload, rawHttp2Upload, client],
    ["sdkUploadVsRawHttp2WithoutDigest", sdkUpload, rawHttp2PlainUpload, rate],
    ["sdkUploadVsRawHttp1", sdkUpload, rawHttp1Upload, rate],
    ["sdkDownloadVsRawHttp2", sdkDownload, rawHttp2Download, rate],
    ["sdkDownloadServerCpuVsRawHttp2", sdkDownload, rawHttp2Download, server],
    ["sdkDownloadClientCpuVsRawHttp2", sdkDownload, rawHttp2Download, client],
  ] as const;
  const ratios: Record<string, number> = {};
  for (const [name, left, right, pick] of wanted) {
    const a = of(left);
    const b = of(right);
    if (a !== undefined && b !== undefined) ratios[name] = Number((pick(a) / pick(b)).toFixed(3));
  }
  return ratios;
}
