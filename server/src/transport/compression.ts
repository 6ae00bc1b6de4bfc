import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { ConnectError } from "@connectrpc/connect";
import type { Compression } from "@connectrpc/connect/protocol";
import { CallRefused } from "../calls/codes.ts";
import { plainText } from "../calls/plain-text.ts";
import { connectCode } from "./error-map.ts";
import { bodyTooLarge } from "./request-body.ts";

const unpack = promisify(gunzip);

/** Headers in which Connect (unary and streaming) and gRPC say how a body is packed, and which answers they take. */
const PACKED_BY = ["content-encoding", "connect-content-encoding", "grpc-encoding"] as const;
const TAKES = ["accept-encoding", "connect-accept-encoding", "grpc-accept-encoding"] as const;

/** Unpacks requests. Answers are never packed: ciphertext does not get smaller, and plain errors are short. */
export const GZIP_REQUESTS: Compression = {
  name: "gzip",
  compress: () => Promise.reject(new Error("expected that no answer is packed")),
  async decompress(bytes, most) {
    if (bytes.length === 0) return new Uint8Array();
    try {
      return new Uint8Array(await unpack(bytes, { maxOutputLength: most }));
    } catch (error) {
      const refused =
        (error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE"
          ? bodyTooLarge(most)
          : new CallRefused("invalid_argument", "expected a body packed with gzip, got something else");
      // The library answers "internal" to errors that are not its own.
      throw new ConnectError(refused.message, connectCode(refused.code));
    }
  },
};

/** Refuses a body that is packed in a way that its route does not take. @throws CallRefused unimplemented */
export function refusePacked(header: (name: string) => string | undefined, takesGzip: boolean): void {
  for (const name of PACKED_BY) {
    const packing = header(name) ?? "identity";
    if (packing === "identity" || packing === "" || (takesGzip && packing === "gzip")) continue;
    const hint = takesGzip ? "pack this call with gzip, or send it uncompressed" : "send this call uncompressed";
    throw new CallRefused("unimplemented", `expected no compression, got ${plainText(packing, 40)}; ${hint}`);
  }
}

/** Has answers come unpacked, whatever the caller offers. */
export function answerPlain(headers: Headers): void {
  for (const name of TAKES) headers.set(name, "identity");
}
