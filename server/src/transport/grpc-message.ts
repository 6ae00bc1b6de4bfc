/**
 * Encodes a message for the header `grpc-message` as the specification says: bytes 0x20 to 0x7E stand for themselves,
 * but for `%`; all others are `%XX` (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, Status-Message).
 * Clients that decode less than everything show it unharmed.
 */
export function encodeGrpcMessage(message: string): string {
  // Encoding everything first takes care of UTF-8.
  return encodeURIComponent(message.toWellFormed()).replace(/%([2-7][0-9A-F])/g, (encoded, hex: string) => {
    const byte = Number.parseInt(hex, 16);
    return byte === 0x25 || byte === 0x7f ? encoded : String.fromCharCode(byte);
  });
}

/** Decodes a `grpc-message`; what is not encoded as it should be stays as it is. */
export function decodeGrpcMessage(encoded: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded;
  }
}
