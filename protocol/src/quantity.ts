/** `1 version`, `2 versions`, `0 versions`: a number with its noun. Nouns that take no plain `s` give their plural. */
export function quantity(count: number | bigint, noun: string, plural = `${noun}s`): string {
  return `${count} ${count === 1 || count === 1n ? noun : plural}`;
}
