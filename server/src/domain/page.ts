import { PAGE_BYTES } from "@strongroom/protocol/limits";

/** What a row takes in an answer beside its texts, in bytes, generously. */
const ROW_BYTES = 512;

/** A page, and whether something comes after it. */
export interface CutPage<T> {
  readonly page: T[];
  readonly more: boolean;
}

/** The first rows, at most `pageSize` of them and no more than fit {@link PAGE_BYTES}, but at least one. */
export function cutPage<T>(rows: readonly T[], pageSize: number, bytesOf: (row: T) => number): CutPage<T> {
  const page: T[] = [];
  let bytes = 0;
  for (const row of rows) {
    if (page.length === pageSize || (page.length > 0 && bytes >= PAGE_BYTES)) return { page, more: true };
    page.push(row);
    bytes += ROW_BYTES + bytesOf(row);
  }
  return { page, more: false };
}

/** Bytes of texts by name. */
export function bytesOfMap(map: Readonly<Record<string, string>>): number {
  return Object.entries(map).reduce((sum, [key, text]) => sum + Buffer.byteLength(key) + Buffer.byteLength(text), 0);
}
