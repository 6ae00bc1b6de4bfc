import { showByte } from "./ascii.ts";

/** What to do about a stream that is not encrypted; the end of many messages. */
export const ENCRYPT_HINT =
  "Encrypt the dump before it is uploaded, for example with `gpg --encrypt --recipient KEY`, `age -r RECIPIENT` or `strongroom backup`";

/** First bytes of what people upload by mistake. */
const LOOKS_LIKE: ReadonlyMap<number, string> = new Map([
  [0x04, "an lz4 file"],
  [0x1f, "a gzip file"],
  [0x28, "a zstd file"],
  [0x2d, "an SQL dump or a PEM file"],
  [0x37, "a 7z archive"],
  [0x3c, "XML"],
  [0x42, "a bzip2 file"],
  [0x50, "a zip archive or a custom-format pg_dump"],
  [0x5b, "JSON"],
  [0x7b, "JSON"],
  [0xef, "text in UTF-8 with a byte order mark"],
  [0xfd, "an xz file"],
  [0xfe, "text in UTF-16, as a Windows shell writes when it redirects"],
  [0xff, "text in UTF-16, as a Windows shell writes when it redirects"],
]);

/** OpenPGP packets (RFC 9580 section 5) that begin messages which are not encrypted. */
const PACKETS: ReadonlyMap<number, string> = new Map([
  [2, "a signature"],
  [4, "a signed message"],
  [5, "a secret key"],
  [6, "a public key"],
  [7, "a secret key"],
  [8, "a compressed message"],
  [11, "a literal message"],
  [14, "a public key"],
]);

/** Sentence for a stream whose first byte starts neither format. */
export function describeStart(value: number): string {
  const likely = LOOKS_LIKE.get(value);
  return (
    `An OpenPGP message or an age file was expected, and byte ${showByte(value)} came` +
    `${likely === undefined ? "" : `, with which ${likely} begins`}. ${ENCRYPT_HINT}`
  );
}

/** Sentence for a stream that begins with an OpenPGP packet which no encrypted message begins with. */
export function describePacketStart(tag: number, value: number): string {
  const packet = PACKETS.get(tag);
  if (packet === undefined) return describeStart(value);
  return `An encrypted OpenPGP message was expected, and this looks like ${packet} (packet ${tag}), which is not encrypted. ${ENCRYPT_HINT}`;
}
