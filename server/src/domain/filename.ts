import type { CiphertextFormat } from "@strongroom/framing";

/** What a file name has to say. */
export interface FilenameFacts {
  /** The collection's template; `${version}` stands for the number. */
  readonly template: string;
  /** As given by the uploader; empty for the template. */
  readonly given: string;
  readonly number: bigint;
  readonly contentEncoding: "none" | "zstd";
  readonly encryptionFormat: CiphertextFormat;
  readonly armored: boolean;
}

/**
 * The name under which a version is downloaded, ending in what was done to the dump, in order: `.zst` for compression,
 * then `.gpg`, `.asc` (armored OpenPGP) or `.age`. By hand: `gpg -d x.tar.zst.gpg | zstd -d`.
 */
export function versionFilename(facts: FilenameFacts): string {
  const encryption = facts.encryptionFormat === "age" ? ".age" : facts.armored ? ".asc" : ".gpg";
  const base = facts.given !== "" ? facts.given : facts.template.replaceAll("${version}", String(facts.number));
  const plain = base.endsWith(encryption) ? base.slice(0, -encryption.length) : base;
  const compression = facts.contentEncoding === "zstd" && !plain.endsWith(".zst") ? ".zst" : "";
  return `${plain}${compression}${encryption}`;
}
