/** Rows of a raw query: the two drivers answer in different forms. */
export function rowsOf(result: unknown): Record<string, unknown>[] {
  return [...(Array.isArray(result) ? result : (result as { rows: unknown[] }).rows)] as Record<string, unknown>[];
}
