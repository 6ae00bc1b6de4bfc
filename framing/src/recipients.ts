/** What a message's header says of those who can open it: names, and how often each stands there. */
export type Recipients = Readonly<Record<string, number>>;

/** Most different names that are counted; what comes after them counts as {@link OTHER}. */
export const MAX_RECIPIENTS = 64;

/** Recipients that have no name of their own here: beyond the bound, or with names that are too long. */
export const OTHER = "other";

/** An OpenPGP recipient that the message does not name. */
export const HIDDEN = "openpgp:hidden";

/** An OpenPGP message that a passphrase opens too. */
export const PASSPHRASE = "openpgp:passphrase";

/**
 * Types of age stanzas whose first argument tells the key: of SSH keys the first four bytes of its SHA-256, of a YubiKey
 * those of its own. All others are anonymous.
 */
const TAGGED: ReadonlySet<string> = new Set(["ssh-ed25519", "ssh-rsa", "piv-p256"]);

/** Most characters of a stanza's arguments that are looked at: a type, and a tag of six. */
export const STANZA_CHARACTERS = 40;

/** Name of an OpenPGP recipient by its key id (16 lower-case hex digits); undefined for a hidden one. */
export function openPgpRecipient(keyId: string | undefined): string {
  return keyId === undefined ? HIDDEN : `openpgp:${keyId}`;
}

/**
 * Name of an age recipient by the arguments of its stanza: `age:X25519`, `age:ssh-ed25519:d6F3Wg`. Undefined for one
 * that is there to be ignored (`...-grease`).
 * @param text the beginning of the line after `-> `, cut at {@link STANZA_CHARACTERS}.
 */
export function ageRecipient(text: string): string | undefined {
  const [type = "", tag = ""] = text.split(" ");
  if (text.length === STANZA_CHARACTERS && !text.includes(" ")) return OTHER;
  if (type.endsWith("-grease")) return undefined;
  if (!/^[\w.-]+$/.test(type)) return OTHER;
  return TAGGED.has(type) ? (/^[\w+/]{6}$/.test(tag) ? `age:${type}:${tag}` : OTHER) : `age:${type}`;
}

/** Counts the recipients of one message, as they pass. */
export class RecipientCounter {
  readonly #counts = new Map<string, number>();

  /** Counts one more, and returns how many of the name there are. */
  add(name: string): number {
    const isKnown = this.#counts.has(name) || this.#counts.size < MAX_RECIPIENTS;
    const key = isKnown ? name : OTHER;
    const count = (this.#counts.get(key) ?? 0) + 1;
    this.#counts.set(key, count);
    return count;
  }

  /** What was counted. */
  get counts(): Recipients {
    return Object.fromEntries(this.#counts);
  }
}
