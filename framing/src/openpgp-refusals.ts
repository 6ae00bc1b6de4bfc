import { showByte } from "./ascii.ts";
import { FramingError } from "./errors.ts";
import { describePacketStart, describeStart, ENCRYPT_HINT } from "./hints.ts";
import { HEADER_LIMIT } from "./limits.ts";

/** A message that broke the rules of OpenPGP; the fault is a text for a person. */
export function malformed(offset: number, fault: string): FramingError {
  return new FramingError(
    "malformed",
    offset,
    `The OpenPGP message is broken: ${fault}. Make the message again with a current OpenPGP program`,
  );
}

/** A packet whose length is below what its version needs. */
export function tooShort(offset: number, type: number, minimum: number, length: number): FramingError {
  return malformed(offset, `expected at least ${minimum} bytes in packet ${type}, got a length of ${length}`);
}

/** A stream that showed itself not to be OpenPGP before any session-key packet did show that it is. */
export function notOpenPgp(offset: number, fault: string): FramingError {
  return new FramingError(
    "not-ciphertext",
    offset,
    `The stream is no encrypted OpenPGP message: ${fault}. ${ENCRYPT_HINT}`,
  );
}

/** A stream that begins with a packet, or with no packet, as no encrypted message does. */
export function notEncrypted(offset: number, type: number | undefined, value: number): FramingError {
  const sentence = type === undefined ? describeStart(value) : describePacketStart(type, value);
  return new FramingError("not-ciphertext", offset, sentence);
}

/** Session-key packets that end after the limit. */
export function headerTooLong(offset: number): FramingError {
  return new FramingError(
    "header-too-long",
    offset,
    `The session-key packets must end within the first ${HEADER_LIMIT} bytes of the stream, and they do not. ` +
      "Encrypt to fewer keys",
  );
}

/** A byte after the end of the message that begins neither a marker nor a padding packet. */
export function trailingData(offset: number, value: number): FramingError {
  return new FramingError(
    "trailing-data",
    offset,
    `The OpenPGP message is over, and byte ${showByte(value)} follows it. Upload one message alone`,
  );
}

/** Packet 9. */
export function notIntegrityProtected(offset: number): FramingError {
  return new FramingError(
    "not-integrity-protected",
    offset,
    "The data is encrypted without integrity protection (packet 9), so changes to it could not be noticed. " +
      "Encrypt with " +
      "integrity protection, which current OpenPGP programs do by themselves",
  );
}

/** A passphrase where the collection pins keys. */
export function passphraseNotAccepted(offset: number): FramingError {
  return new FramingError(
    "recipient-not-accepted",
    offset,
    "This collection accepts only messages to its own keys, and this one can be opened with a passphrase. " +
      "Encrypt without a " +
      "passphrase (gpg: leave out --symmetric)",
  );
}

/** A recipient that the collection does not pin; `keyId` is undefined for a hidden one. */
export function recipientNotAccepted(offset: number, keyId: string | undefined): FramingError {
  const recipient = keyId === undefined ? "a hidden recipient" : `the key ${keyId}`;
  return new FramingError(
    "recipient-not-accepted",
    offset,
    `This collection accepts only messages to its own keys, and this one is encrypted to ${recipient}. Encrypt ` +
      "to the collection's " +
      "keys alone, and look for defaults such as gpg's encrypt-to",
  );
}
