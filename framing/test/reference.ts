/*
 * The same rules once more, written over whole buffers and without any state, to compare the machine with. Slow and
 * plain on purpose.
 */

const LIMIT = 65_536;

/** Whether a whole stream is one acceptable message, whatever its format. */
export function accepts(stream: Uint8Array): boolean {
  if (stream.length === 0) return false;
  const latin1 = Buffer.from(stream).toString("latin1");
  if (latin1.startsWith("age-encryption.org/v1\n")) return acceptsAge(stream, (at) => at);
  const trimmed = latin1.replace(/^(?:[ \t\r\n]{0,1023}\n)?(?=-----BEGIN )/, "");
  const leading = latin1.length - trimmed.length;
  if (trimmed.startsWith("-----BEGIN PGP MESSAGE-----")) return acceptsPgpArmor(trimmed, leading);
  if (trimmed.startsWith("-----BEGIN AGE ENCRYPTED FILE-----")) return acceptsAgeArmor(trimmed, leading);
  return acceptsOpenPgp(stream, (at) => at, false);
}

/** `place` gives the offset in the stream of a byte of the message. */
function acceptsOpenPgp(message: Uint8Array, place: (at: number) => number, armored: boolean): boolean {
  let at = 0;
  let keys = 0;
  let data = 0;
  while (at < message.length) {
    const begin = at;
    const first = message[at++]!;
    if (first < 0x80) return false;
    const old = first < 0xc0;
    const type = old ? (first >> 2) & 15 : first & 63;
    const isData = type === 18 || type === 20;
    const isFiller = type === 10 || type === 21;
    if (data > 0 ? !isFiller : !isFiller && !isData && type !== 1 && type !== 3) return false;
    if (isData && keys === 0) return false;
    // In armor the first byte of the payload must be within the limit, too.
    if (isData && armored && place(begin) >= LIMIT) return false;
    const parts: Uint8Array[] = [];
    for (let more = true; more; ) {
      more = false;
      let length: number;
      const read = (octets: number) => {
        if (at + octets > message.length) return Number.NaN;
        const value = Buffer.from(message.subarray(at, at + octets)).readUIntBE(0, octets);
        at += octets;
        return value;
      };
      if (old) {
        if ((first & 3) === 3) return false;
        length = read(1 << (first & 3));
      } else {
        const octet = read(1);
        if (octet < 192) length = octet;
        else if (octet < 224) length = (octet - 192) * 256 + read(1) + 192;
        else if (octet < 255) {
          if (!isData) return false;
          length = 2 ** (octet - 224);
          if (parts.length === 0 && length < 512) return false;
          more = true;
        } else length = read(4);
      }
      if (!(at + length <= message.length)) return false;
      parts.push(message.subarray(at, at + length));
      at += length;
    }
    const content = Buffer.concat(parts);
    if (data === 0 && !isData && (at - begin > LIMIT || place(at - 1) >= LIMIT)) return false;
    if (type === 10 && content.toString("latin1") !== "PGP") return false;
    if (type === 1 && !acceptsPublicKey(content)) return false;
    if (type === 3 && !(content.length >= ({ 4: 4, 5: 5, 6: 7 }[content[0] ?? 0] ?? Number.POSITIVE_INFINITY)))
      return false;
    if (isData) {
      const versions: Record<number, number> = type === 18 ? { 1: 41, 2: 76 } : { 1: 56 };
      if (!(content.length >= (versions[content[0] ?? 0] ?? Number.POSITIVE_INFINITY))) return false;
      data += 1;
    } else if (!isFiller) keys += 1;
  }
  return data === 1;
}

function acceptsPublicKey(content: Buffer): boolean {
  if (content[0] === 3) return content.length >= 12;
  if (content[0] !== 6) return false;
  const size = content[1];
  if (size === 0) return content.length >= 5;
  if (size === 21) return content[2] === 4 && content.length >= 26;
  return size === 33 && content[2] === 6 && content.length >= 38;
}

const canonical = (base64: string) => Buffer.from(base64, "base64").toString("base64").replaceAll("=", "") === base64;

function acceptsAge(file: Uint8Array, place: (at: number) => number): boolean {
  const latin1 = Buffer.from(file.subarray(0, 2 * LIMIT)).toString("latin1");
  const header =
    /^age-encryption\.org\/v1\n(?:-> [!-~]+(?: [!-~]+)*\n(?:[A-Za-z0-9+/]{64}\n)*[A-Za-z0-9+/]{0,63}\n)+--- [A-Za-z0-9+/]{43}\n/.exec(
      latin1,
    )?.[0];
  if (header === undefined || place(header.length - 1) >= LIMIT) return false;
  const groups = header
    .slice(0, -1)
    .split("\n")
    .slice(1)
    .map((line) => (line.startsWith("-> ") ? "\n" : line.replace(/^--- /, "\n")))
    .join("")
    .split("\n");
  if (!groups.every(canonical)) return false;
  const payload = file.length - header.length - 16;
  if (payload < 16) return false;
  const rest = payload % 65_552;
  return payload === 16 || rest === 0 || rest > 16;
}

/** Bytes of base64 and, for each, the offset in the text of its last character. */
function decode(base64: string, start: number): { bytes: Uint8Array; place: (at: number) => number } | undefined {
  const places: number[] = [];
  let characters = "";
  for (let index = 0; index < base64.length; index += 1) {
    const character = base64[index]!;
    if (character === "\r" || character === "\n") continue;
    if (character !== "=" && characters.length % 4 > 0) places.push(start + index);
    characters += character;
  }
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(characters)) return undefined;
  const bytes = Buffer.from(characters, "base64");
  if (bytes.toString("base64") !== characters) return undefined;
  return { bytes, place: (at) => places[at]! };
}

function acceptsPgpArmor(armor: string, leading: number): boolean {
  const head =
    /^-----BEGIN PGP MESSAGE-----[ \t]*\r?\n(?:[!-9;-~][!-9;-~]*:(?: [\t -~\x80-\xff]*)?\r?\n)*[ \t]*\r?\n/.exec(
      armor,
    )?.[0];
  if (head === undefined || leading + head.length > 4096) return false;
  const match = /^((?:[!-~]{1,76}\r?\n)*)-----END PGP MESSAGE-----([ \t\r\n]{0,1023})$/.exec(armor.slice(head.length));
  if (match === null) return false;
  const bodyLines = match[1]!.split(/(?<=\n)/);
  // An equals sign begins a checksum only after whole groups of four; within a group it is padding on a new line.
  const checksum = bodyLines.findIndex((line, index) => {
    return line.startsWith("=") && bodyLines.slice(0, index).join("").replaceAll(/\s/g, "").length % 4 === 0;
  });
  if (checksum >= 0 && checksum !== bodyLines.length - 1) return false;
  const inner = decode((checksum < 0 ? bodyLines : bodyLines.slice(0, -1)).join(""), leading + head.length);
  return inner !== undefined && acceptsOpenPgp(inner.bytes, inner.place, true);
}

function acceptsAgeArmor(armor: string, leading: number): boolean {
  const match =
    /^-----BEGIN AGE ENCRYPTED FILE-----\r?\n((?:[A-Za-z0-9+/=]{64}\r?\n)*(?:[A-Za-z0-9+/=]{1,63}\r?\n)?)-----END AGE ENCRYPTED FILE-----(?:[\r\n][ \t\r\n]*)?$/.exec(
      armor,
    );
  if (match === null) return false;
  const trailing = armor.length - armor.lastIndexOf("-----") - 5;
  if (trailing > 1023) return false;
  const inner = decode(match[1]!, leading + armor.indexOf("\n") + 1);
  return inner !== undefined && acceptsAge(inner.bytes, inner.place);
}
