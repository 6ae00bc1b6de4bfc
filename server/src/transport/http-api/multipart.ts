import { CallRefused } from "../../calls/codes.ts";

/** Most bytes of a form around its file: other parts, headers, what is before and after. */
const MOST_AROUND = 16 * 1024;

/** RFC 2046 allows 70 characters; some programs take more. */
const MOST_BOUNDARY = 200;

const NEWLINE = Buffer.from("\r\n");

/** The boundary that a content type names; undefined when it is no form with parts. */
export function boundaryOf(contentType: string | undefined): string | undefined {
  if (contentType === undefined || !/^multipart\/form-data\s*(;|$)/i.test(contentType)) return undefined;
  const [, quoted, bare] = /;\s*boundary=(?:"([^"]*)"|([^\s;,"]+))/i.exec(contentType) ?? [];
  const boundary = quoted ?? bare ?? "";
  if (boundary === "" || boundary.length > MOST_BOUNDARY)
    throw malformed("expected a boundary in the Content-Type of a form with parts");
  return boundary;
}

/**
 * The bytes of the part `file` of a form (RFC 7578), as they come: nothing is held but what may be the beginning of a
 * boundary. Ends when the whole form was read.
 * @throws CallRefused for a form without that part, with two of them, or cut off
 */
export async function* filePart(body: AsyncIterable<Uint8Array>, boundary: string): AsyncGenerator<Uint8Array> {
  const form = new Form(body, boundary);
  let isFound = false;
  for await (const _ of form.untilBoundary("around"));
  while (await form.hasPart()) {
    const isFile = (await form.partName()) === "file";
    if (isFile && isFound) throw malformed("expected one part named file, got two");
    if (isFile) yield* form.untilBoundary("file");
    else for await (const _ of form.untilBoundary("around"));
    isFound ||= isFile;
  }
  await form.end();
  if (!isFound) throw malformed("expected a part named file in the form, got none");
}

class Form {
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #delimiter: Buffer;
  /** What was read and not yet given on. A boundary at the very beginning has no end of a line before it. */
  #rest: Buffer = NEWLINE;
  #around = 0;

  constructor(body: AsyncIterable<Uint8Array>, boundary: string) {
    this.#chunks = body[Symbol.asyncIterator]();
    this.#delimiter = Buffer.from(`\r\n--${boundary}`, "latin1");
  }

  /** The bytes up to the next boundary, which is left behind. */
  async *untilBoundary(what: "file" | "around"): AsyncGenerator<Uint8Array> {
    for (;;) {
      const at = this.#rest.indexOf(this.#delimiter);
      const kept = Math.min(this.#rest.length, this.#delimiter.length - 1);
      const bytes = this.#rest.subarray(0, at < 0 ? this.#rest.length - kept : at);
      this.#rest = this.#rest.subarray(at < 0 ? bytes.length : at + this.#delimiter.length);
      if (what === "around") this.#count(bytes.length);
      if (bytes.length > 0) yield bytes;
      if (at >= 0) return;
      await this.#more();
    }
  }

  /** Whether a part follows the boundary, or the form's end. */
  async hasPart(): Promise<boolean> {
    while (this.#rest.length < 2) await this.#more();
    if (this.#rest.subarray(0, 2).toString("latin1") === "--") return false;
    if ((await this.#line()).trim() !== "") throw malformed("expected the end of the line after a boundary");
    return true;
  }

  /** Reads the headers of a part. @returns its name; empty for none. */
  async partName(): Promise<string> {
    let name = "";
    for (let line = await this.#line(); line !== ""; line = await this.#line()) {
      const [, parameters] = /^content-disposition:\s*form-data\s*;(.*)$/i.exec(line) ?? [];
      const [, quoted, bare] = /(?:^|;)\s*name=(?:"([^"]*)"|([^\s;"]+))/i.exec(parameters ?? "") ?? [];
      name = quoted ?? bare ?? name;
    }
    return name;
  }

  /** Reads what is after the form, so that the end of the body is seen. */
  async end(): Promise<void> {
    this.#count(this.#rest.length);
    for (let next = await this.#chunks.next(); next.done !== true; next = await this.#chunks.next())
      this.#count(next.value.length);
  }

  async #line(): Promise<string> {
    for (;;) {
      const at = this.#rest.indexOf(NEWLINE);
      if (at >= 0) {
        const line = this.#rest.subarray(0, at).toString("latin1");
        this.#rest = this.#rest.subarray(at + NEWLINE.length);
        this.#count(line.length + NEWLINE.length);
        return line;
      }
      if (this.#around + this.#rest.length > MOST_AROUND) this.#count(this.#rest.length);
      await this.#more();
    }
  }

  async #more(): Promise<void> {
    const next = await this.#chunks.next();
    if (next.done === true)
      throw malformed("the form is cut off: expected its closing boundary, got the end of the body");
    this.#rest = Buffer.concat([this.#rest, next.value]);
  }

  #count(bytes: number): void {
    this.#around += bytes;
    if (this.#around > MOST_AROUND)
      throw malformed(`expected at most ${MOST_AROUND} bytes around the file in a form, got more; send the file alone`);
  }
}

function malformed(message: string): CallRefused {
  return new CallRefused("invalid_argument", message);
}
