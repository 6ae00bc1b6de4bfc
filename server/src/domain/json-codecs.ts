/** How a value of one kind is written as JSON and read back. */
export interface JsonCodec<T> {
  /** What a text for people says was expected. */
  readonly expected: string;
  write(value: T): unknown;
  /** The value; undefined when the JSON is none of this kind. */
  read(json: unknown): T | undefined;
}

/** A text. @param form what it must match, in words and as an expression; any when left out. */
export function text(expected = "a text", form = /(?:)/): JsonCodec<string> {
  return {
    expected,
    write: (value) => value,
    read: (json) => (typeof json === "string" && form.test(json) ? json : undefined),
  };
}

/** One of these words. */
export function oneOf<const W extends string>(...words: readonly W[]): JsonCodec<W> {
  return {
    expected: words.map((word) => `"${word}"`).join(" or "),
    write: (value) => value,
    read: (json) => words.find((word) => word === json),
  };
}

/** A number of bytes or things that may pass 2^53, at least 1: decimal digits in a text. */
export function count(): JsonCodec<bigint> {
  return {
    expected: "decimal digits in a text, at least 1",
    write: (value) => String(value),
    read: (json) => (typeof json === "string" && /^[1-9]\d{0,17}$/.test(json) ? BigInt(json) : undefined),
  };
}

/** A whole number, at least `least`. */
export function whole(least: number): JsonCodec<number> {
  return {
    expected: `a whole number, at least ${least}`,
    write: (value) => value,
    read: (json) => (Number.isSafeInteger(json) && (json as number) >= least ? (json as number) : undefined),
  };
}

/** True or false. */
export function flag(): JsonCodec<boolean> {
  return {
    expected: "true or false",
    write: (value) => value,
    read: (json) => (typeof json === "boolean" ? json : undefined),
  };
}

/** A point in time, to the millisecond: ISO 8601. */
export function time(): JsonCodec<Date> {
  return {
    expected: "a time",
    write: (value) => value.toISOString(),
    read: (json) => {
      const date = new Date(typeof json === "string" ? json : Number.NaN);
      return Number.isNaN(date.getTime()) ? undefined : date;
    },
  };
}

/** A SHA-256 digest: hexadecimal. */
export function digest(): JsonCodec<Uint8Array> {
  return {
    expected: "a SHA-256 digest of 64 hexadecimal digits",
    write: (value) => Buffer.from(value).toString("hex"),
    read: (json) =>
      typeof json === "string" && /^[0-9a-f]{64}$/.test(json) ? Uint8Array.from(Buffer.from(json, "hex")) : undefined,
  };
}

/** Texts by name. */
export function texts(): JsonCodec<Record<string, string>> {
  return {
    expected: "names and texts",
    write: (value) => value,
    read: (json) => {
      const isMap = typeof json === "object" && json !== null && !Array.isArray(json);
      return isMap && Object.values(json).every((value) => typeof value === "string")
        ? (json as Record<string, string>)
        : undefined;
    },
  };
}

/** How many of something, by name: whole numbers from 1. */
export function tally(): JsonCodec<Readonly<Record<string, number>>> {
  return {
    expected: "names and numbers",
    write: (value) => value,
    read: (json) => {
      const isMap = typeof json === "object" && json !== null && !Array.isArray(json);
      return isMap && Object.values(json).every((value) => Number.isSafeInteger(value) && value >= 1)
        ? (json as Record<string, number>)
        : undefined;
    },
  };
}

/** A list of at least one. */
export function listOf<T>(of: JsonCodec<T>): JsonCodec<readonly T[]> {
  return {
    expected: `a list, each ${of.expected}`,
    write: (value) => value.map((item) => of.write(item)),
    read: (json) => {
      if (!Array.isArray(json) || json.length === 0) return undefined;
      const items = json.map((item) => of.read(item));
      return items.every((item) => item !== undefined) ? items : undefined;
    },
  };
}

/** Something, or null. */
export function orNull<T>(of: JsonCodec<T>): JsonCodec<T | null> {
  return {
    expected: `${of.expected}, or null`,
    write: (value) => (value === null ? null : of.write(value)),
    read: (json) => (json === null ? null : of.read(json)),
  };
}
