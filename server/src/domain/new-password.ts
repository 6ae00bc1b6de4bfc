/** Letters and digits without those that look alike (0 o, 1 i l), so that a password can be read from paper. */
const ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789";
/** 26 of 31 characters are 128 bits. */
const PASSWORD_LENGTH = 26;

/**
 * Makes a password that nobody guesses, of 128 bits. Draws every character with equal chance: bytes beyond the largest
 * multiple of the alphabet's length are thrown away.
 * @param randomBytes gives so many unpredictable bytes.
 */
export function newPassword(randomBytes: (count: number) => Uint8Array): string {
  const fair = 256 - (256 % ALPHABET.length);
  let password = "";
  while (password.length < PASSWORD_LENGTH) {
    for (const byte of randomBytes(PASSWORD_LENGTH)) {
      if (byte < fair && password.length < PASSWORD_LENGTH) password += ALPHABET[byte % ALPHABET.length];
    }
  }
  return password;
}
