/**
 * Takes ASCII armor off a stream: OpenPGP's (RFC 9580 section 6) and age's (strict PEM), which the libraries read
 * slowly or only as a whole.
 */
import { decryptionFailure } from "./options.ts";

/** Whether a stream that begins so is armored: white space, and five dashes. Binary messages begin with neither. */
export function isArmored(head: Uint8Array): boolean {
  return Buffer.from(head.buffer, head.byteOffset, head.length)
    .toString("latin1")
    .trimStart()
    .startsWith("-----BEGIN ");
}

/** The bytes inside; headers of the armor and checksums are left out. Memory: a chunk of the source. */
export async function* unarmor(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let pending = "";
  let place: "before" | "head" | "body" | "after" = "before";
  let left = "";
  for await (const chunk of source) {
    const text = pending + Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength).toString("latin1");
    const parts = text.split("\n");
    pending = parts.pop()!;
    for (const part of parts) {
      const line = part.trim();
      if (place === "before") {
        // age has neither headers nor the blank line that ends them.
        if (line.startsWith("-----BEGIN ")) place = line.includes("PGP") ? "head" : "body";
      } else if (place === "head") {
        if (line === "") place = "body";
      } else if (place === "body") {
        if (line.startsWith("-----END ")) place = "after";
        // A checksum; padding that was moved to a line of its own is shorter.
        else if (!(line.startsWith("=") && line.length > 2)) left += line;
      }
    }
    // Lines may have any length, so only whole groups of four are decoded.
    const whole = place === "after" ? left.length : left.length - (left.length % 4);
    if (whole > 0) yield Buffer.from(left.slice(0, whole), "base64");
    left = left.slice(whole);
  }
  if (place === "body" && pending.trim().startsWith("-----END ")) {
    place = "after";
    if (left !== "") yield Buffer.from(left, "base64");
  }
  if (place !== "after") throw decryptionFailure("The armored message ends before its last line.");
}
