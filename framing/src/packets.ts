/** Public-key encrypted session key (RFC 9580 section 5.1). */
export const PKESK = 1;
/** Symmetric-key (passphrase) encrypted session key (RFC 9580 section 5.3). */
export const SKESK = 3;
/** Symmetrically encrypted data without integrity protection (RFC 9580 section 5.7); refused. */
export const UNPROTECTED = 9;
/** Marker, which says nothing (RFC 9580 section 5.8). */
export const MARKER = 10;
/** Symmetrically encrypted and integrity protected data (RFC 9580 section 5.13). */
export const SEIPD = 18;
/**
 * AEAD encrypted data of LibrePGP (draft-koch-librepgp), made by GnuPG 2.3 and later where the key says that it can
 * read it.
 */
export const AEAD = 20;
/** Padding (RFC 9580 section 5.14). */
export const PADDING = 21;

/** Body of a marker packet: "PGP". */
export const MARKER_TEXT: Readonly<Uint8Array> = Uint8Array.of(0x50, 0x47, 0x50);

/** Least bytes in the first part of a body of partial lengths (RFC 9580 section 4.2.1.4). */
export const FIRST_PARTIAL_MIN = 512;

/**
 * The shortest message that can be encrypted: a literal packet of a 2-byte header and a 6-byte body (format, empty
 * name, date). Whatever is shorter than the packet around it cannot be decrypted; greater minima would refuse small
 * dumps.
 */
const MESSAGE_MIN = 8;

/** By packet type and version, the first byte of the body: least bytes in the body. Other versions are not known. */
const MINIMA: ReadonlyMap<number, ReadonlyMap<number, number>> = new Map([
  [
    SKESK,
    new Map([
      // RFC 4880: version, cipher, simple S2K of 2.
      [4, 4],
      // LibrePGP, with packet 20: version, cipher, AEAD mode, S2K.
      [5, 5],
      // RFC 9580: version, count, cipher, AEAD mode, count, S2K.
      [6, 7],
    ]),
  ],
  [
    SEIPD,
    new Map([
      // Version, prefix of 8 + 2 (block ciphers of 64 bits have the shortest), message, modification detection code of
      // 22.
      [1, 1 + 10 + MESSAGE_MIN + 22],
      // Version, cipher, AEAD mode, chunk size, salt of 32, message with its tag of 16, last tag of 16.
      [2, 4 + 32 + MESSAGE_MIN + 16 + 16],
    ]),
  ],
  // Version, cipher, AEAD mode, chunk size, nonce (12 in GCM, which is experimental, is the shortest), message with its
  // tag, last tag.
  [AEAD, new Map([[1, 4 + 12 + MESSAGE_MIN + 16 + 16]])],
]);

/** Packet type in the first octet of a packet (RFC 9580 section 4.2), or undefined where bit 7 says that it is none. */
export function packetType(value: number): number | undefined {
  if ((value & 0x80) === 0) return undefined;
  return (value & 0x40) === 0 ? (value >> 2) & 0x0f : value & 0x3f;
}

/** Whether a packet is one of those that encrypted messages are made of, {@link UNPROTECTED} included. */
export function isMessagePacket(type: number | undefined): boolean {
  return isDataPacket(type) || isKeyPacket(type) || type === MARKER || type === PADDING;
}

/** Whether a packet holds encrypted data, {@link UNPROTECTED} included. */
export function isDataPacket(type: number | undefined): boolean {
  return type === SEIPD || type === AEAD || type === UNPROTECTED;
}

/** Whether a packet holds a session key. */
export function isKeyPacket(type: number | undefined): boolean {
  return type === PKESK || type === SKESK;
}

/** Least bytes in the body of a packet of this type and version, or undefined for an unknown version. */
export function minimumOfVersion(type: number, version: number): number | undefined {
  return MINIMA.get(type)?.get(version);
}

/** The versions that are known of a packet type, for messages. */
export function knownVersions(type: number): string {
  return [...(MINIMA.get(type)?.keys() ?? [])].join(" or ");
}

/** Least bytes in the body of a packet of this type, whatever its version. */
export function minimumBody(type: number): number {
  // Version, no recipient, algorithm, and the length of an MPI.
  if (type === PKESK) return 5;
  if (type === MARKER) return MARKER_TEXT.length;
  const minima = MINIMA.get(type);
  return minima === undefined ? 0 : Math.min(...minima.values());
}
