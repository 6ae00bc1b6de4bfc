import { asciiBytes } from "./ascii.ts";

/** How a kind of file shows itself. */
export interface Signature {
  /** What it is, with its article: `a gzip file`. */
  readonly what: string;
  /** Bytes that it holds at {@link Signature.at}. */
  readonly bytes: Uint8Array;
  /** Where; 0 unless said otherwise. */
  readonly at?: number;
  /** Whether it is encrypted in a way that is not accepted here. */
  readonly encrypted?: boolean;
}

const hex = (digits: string): Uint8Array =>
  Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
const bytes = (what: string, digits: string, at = 0): Signature => ({ what, bytes: hex(digits), at });
const word = (what: string, text: string, at = 0): Signature => ({ what, bytes: asciiBytes(text), at });
const sealed = (what: string, text: string): Signature => ({ what, bytes: asciiBytes(text), encrypted: true });

const PG_DUMP = "a plain pg_dump";
const MARIADB = "a MariaDB dump";

/**
 * Files that people upload by mistake, by their first bytes; the more special before the more general. From the
 * formats' own documents and the data base of `file` (https://github.com/file/file/tree/master/magic).
 */
export const SIGNATURES: readonly Signature[] = [
  // Encrypted otherwise.
  { what: "a LUKS volume", bytes: hex("4c554b53babe"), encrypted: true },
  sealed("a file of `openssl enc`", "Salted__"),
  // The same in base64 (`openssl enc -a`).
  sealed("a file of `openssl enc`", "U2FsdGVkX1"),
  sealed("a file of Ansible Vault", "$ANSIBLE_VAULT;"),
  sealed("an S/MIME or CMS message", "-----BEGIN PKCS7-----"),
  sealed("an S/MIME or CMS message", "-----BEGIN CMS-----"),
  sealed("an age file of another version", "age-encryption.org/"),
  sealed("a part of a Borg repository", "BORG_SEG"),
  sealed("an index of a Borg repository", "BORG_IDX"),
  sealed("a key of a Borg repository", "BORG_KEY "),
  // Dumps.
  word("a custom-format pg_dump", "PGDMP"),
  word(PG_DUMP, "--\n-- PostgreSQL database"),
  word(PG_DUMP, "--\r\n-- PostgreSQL database"),
  word(MARIADB, "-- MariaDB dump"),
  word(MARIADB, "/*M!999999"),
  word(MARIADB, "/*!999999"),
  word("a MySQL dump", "-- MySQL dump"),
  word("a MySQL dump", "/*!40"),
  bytes("an archive of mongodump", "6de29981"),
  word("a Redis dump (RDB)", "REDIS0"),
  word("a log of Redis commands (AOF)", "*2\r\n$6\r\nSELECT"),
  word("an SQLite database", "SQLite format 3\0"),
  word("a dump of SQLite", "PRAGMA foreign_keys="),
  word("an Oracle export", "EXPORT:V"),
  bytes("an etcd snapshot", "edda0ced", 16),
  word("an LDIF file", "dn: "),
  // Archives and compression.
  word("a tar archive", "ustar", 257),
  word("a cpio archive", "07070"),
  bytes("a gzip file", "1f8b"),
  bytes("a zstd file", "28b52ffd"),
  bytes("an xz file", "fd377a585a00"),
  word("a bzip2 file", "BZh"),
  bytes("an lz4 file", "04224d18"),
  word("an lzip file", "LZIP"),
  bytes("an lzop file", "894c5a4f00"),
  bytes("a zip archive", "504b0304"),
  bytes("a zip archive", "504b0506"),
  bytes("a 7z archive", "377abcaf271c"),
  bytes("a RAR archive", "526172211a07"),
  bytes("a snapshot of Btrfs", "62747266732d73747265616d00"),
  bytes("a snapshot of ZFS", "accbbaf502000000", 8),
  // Volumes.
  bytes("a qcow2 image", "514649fb"),
  word("a VMDK image", "KDMV"),
  bytes("a file system of ext2, 3 or 4", "53ef", 1080),
  word("a file system of XFS", "XFSB"),
  // Other files.
  bytes("a PNG picture", "89504e470d0a1a0a"),
  bytes("a JPEG picture", "ffd8ff"),
  word("a GIF picture", "GIF8"),
  word("a PDF file", "%PDF-"),
  bytes("a Java serialization stream", "aced0005"),
  bytes("a Java class file", "cafebabe"),
  bytes("a program", "7f454c46"),
  bytes("an HDF5 file", "894844460d0a1a0a"),
  word("a Parquet file", "PAR1"),
  word("a git bundle", "# v2 git bundle"),
  // Armor and PEM.
  word("an OpenPGP public key", "-----BEGIN PGP PUBLIC KEY BLOCK-----"),
  word("an OpenPGP private key", "-----BEGIN PGP PRIVATE KEY BLOCK-----"),
  word("a text signed with OpenPGP, which is not encrypted", "-----BEGIN PGP SIGNED MESSAGE-----"),
  word("an OpenPGP signature", "-----BEGIN PGP SIGNATURE-----"),
  word("an OpenPGP message in several parts", "-----BEGIN PGP MESSAGE, PART"),
  word("a PEM file", "-----BEGIN "),
  word("XML", "<?xml"),
  // Text with marks of its encoding.
  bytes("text in UTF-8 with a byte order mark", "efbbbf"),
  bytes("text in UTF-16, as a Windows shell writes when it redirects", "fffe"),
  bytes("text in UTF-16, as a Windows shell writes when it redirects", "feff"),
];
