import type { AuditEntry } from "../../domain/audit-chain.ts";
import { type ExportedEntry, entryOf } from "./read-log.ts";

/**
 * The rows of an export, one JSON object a line; empty lines are skipped. An export lists the newest rows first or
 * last: they are put in order.
 * @throws Error which says the line that is none
 */
export async function* exportedRows(lines: AsyncIterable<string>): AsyncGenerator<AuditEntry, void, undefined> {
  const rows: AuditEntry[] = [];
  let number = 0;
  for await (const line of lines) {
    number++;
    if (line.trim() === "") continue;
    try {
      rows.push(entryOf(JSON.parse(line) as ExportedEntry));
    } catch (error) {
      throw new Error(`line ${number} of the export is no event: ${(error as Error).message}`, { cause: error });
    }
  }
  const last = 2n ** 63n;
  yield* rows.sort((a, b) => ((a.place ?? last) < (b.place ?? last) ? -1 : 1));
}
