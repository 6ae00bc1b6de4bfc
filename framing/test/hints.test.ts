import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import test, { type ExecutionContext } from "ava";
import { join, noise, run, text } from "./support.ts";

const fixture = (name: string) => new Uint8Array(readFileSync(new URL(`fixtures/${name}`, import.meta.url)));
const hex = (digits: string) => new Uint8Array(Buffer.from(digits.replaceAll(" ", ""), "hex"));

/** The message for a person about a refused stream. */
function words(t: ExecutionContext, stream: Uint8Array): string {
  const verdict = run(stream);
  t.false(verdict.accepted);
  return verdict.accepted ? "" : verdict.message;
}

function startingWith(start: string | Uint8Array, length = 2_000): Uint8Array {
  return join(typeof start === "string" ? text(start) : start, noise(length, 7));
}

const PLAIN: Readonly<Record<string, readonly Uint8Array[]>> = {
  "a gzip file": [new Uint8Array(gzipSync("x".repeat(5000)))],
  "a zstd file": [new Uint8Array(zstdCompressSync("x".repeat(5000)))],
  "an xz file": [startingWith(hex("fd377a585a00 0004"))],
  "a bzip2 file": [startingWith("BZh91AY&SY")],
  "an lz4 file": [startingWith(hex("04224d18"))],
  "a zip archive": [startingWith(hex("504b0304 1400 0000 0800"))],
  "a 7z archive": [startingWith(hex("377abcaf271c 0004"))],
  "an SQLite database": [startingWith("SQLite format 3\0")],
  "a dump of SQLite": [fixture("dump-sqlite.sql")],
  "a custom-format pg_dump": [startingWith("PGDMP\x01\x0e\x00")],
  "a plain pg_dump": [
    text("--\n-- PostgreSQL database dump\n--\n\nSET x = 1;\n"),
    text("--\n-- PostgreSQL database cluster dump\n--\n"),
  ],
  "a MySQL dump": [text("-- MySQL dump 10.13  Distrib 8.0\n--\n"), text("/*!40101 SET NAMES utf8 */;\n")],
  "a MariaDB dump": [
    text("/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump 10.19\n"),
    text("-- MariaDB dump 10.19-11.4\n"),
  ],
  "an archive of mongodump": [startingWith(hex("6de29981"))],
  "a Redis dump \\(RDB\\)": [startingWith("REDIS0011")],
  "an SQL dump": [text("CREATE TABLE a (b int);\nINSERT INTO a VALUES (1);\n"), text("-- dump of today\nBEGIN;\n")],
  "a PNG picture": [fixture("dump-png")],
  "a JPEG picture": [fixture("dump-wallet.jpg")],
  "a Java serialization stream": [fixture("dump-java.ser")],
  "plain text": [fixture("dump-utf8.txt"), text("hello, these are my notes\n"), text("a poem about age\nand time\n")],
  "text in UTF-8 with a byte order mark": [text("\ufeffhello\n")],
  "text in UTF-16": [
    new Uint8Array(Buffer.from("\ufeffINSERT INTO x", "utf16le")),
    new Uint8Array(Buffer.from("INSERT INTO x VALUES (1);", "utf16le")),
  ],
  JSON: [text('{"a": [1, 2, 3]}\n')],
  XML: [text('<?xml version="1.0"?>\n<a/>')],
  "an HTML page": [text("<!DOCTYPE html>\n<html><body>502 Bad Gateway</body></html>")],
  "an OpenPGP public key": [text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEZ\n")],
  "a text signed with OpenPGP": [text("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nhello\n")],
  "a PEM file": [text("-----BEGIN CERTIFICATE-----\nMIIB\n")],
};

const SEALED: Readonly<Record<string, readonly Uint8Array[]>> = {
  "a LUKS volume": [startingWith(hex("4c554b53babe 0002"))],
  "a file of `openssl enc`": [
    fixture("dump-openssl.enc"),
    text(`${Buffer.from(fixture("dump-openssl.enc")).toString("base64").replace(/.{64}/g, "$&\n")}\n`),
  ],
  "an encrypted zip archive": [startingWith(hex("504b0304 1400 0100 0800"))],
  "an S/MIME or CMS message": [
    startingWith(hex("3082 0a12 0609 2a864886f70d010703 a082")),
    startingWith(hex("3080 0609 2a864886f70d010703 a080")),
    text("-----BEGIN PKCS7-----\nMIIB\n"),
    text("-----BEGIN CMS-----\nMIIB\n"),
  ],
  "an S/MIME message": [
    text(
      'MIME-Version: 1.0\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data; name="smime.p7m"\n\nMIIB\n',
    ),
  ],
  "a key of a restic repository": [
    text('{"created":"2026-01-01T00:00:00Z","username":"root","kdf":"scrypt","N":32768}'),
  ],
  "a part of a Borg repository": [fixture("dump-borg.seg")],
  "the configuration of a Borg repository": [text("[repository]\nversion = 1\nsegments_per_dir = 1000\n")],
  "an age file of another version": [text("age-encryption.org/v9\n-> X25519 abc\n")],
};

test("what is not encrypted is named, with what to do", (t) => {
  for (const [what, streams] of Object.entries(PLAIN)) {
    for (const stream of streams) {
      t.regex(words(t, stream), new RegExp(`got ${what}.*Encrypt the dump before it is uploaded`), what);
    }
  }
});

test("what is encrypted otherwise is not accepted, and is not called plain", (t) => {
  for (const [what, streams] of Object.entries(SEALED)) {
    for (const stream of streams) {
      const message = words(t, stream);
      t.regex(message, new RegExp(`got ${what}: it may be encrypted, but this kind is not accepted`), what);
      t.notRegex(message, /before it is uploaded/);
    }
  }
});

test("text before armor is the reason, not the armor", (t) => {
  const armor = "-----BEGIN PGP MESSAGE-----\n\njA0ECQMC\n";
  for (const before of [
    "Here is the dump:\n\n",
    "Subject: backup\n\n",
    " ",
    "-- a comment\n",
    "gpg: using key 1234\n",
  ]) {
    t.regex(words(t, text(before + armor)), new RegExp(`${before.length} bytes before that line.*the message alone`));
  }
  t.regex(words(t, text("note\n-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n")), /5 bytes before that line/);
});

test("what began as an accepted format keeps its own reason", (t) => {
  t.regex(words(t, text("-----BEGIN PGP MESSAGE-----\n\n!!!!\n")), /The armor is broken/);
  t.regex(words(t, text("age-encryption.org/v1\nplain text follows\n")), /The age file is broken/);
  t.regex(words(t, noise(500, 3).fill(0x01, 0, 1)), /got byte 0x01/);
  t.regex(words(t, text("x")), /got byte 0x78 \("x"\)/);
});

test("violation and offset are the same, however little of the stream is seen at once", (t) => {
  for (const stream of [...Object.values(PLAIN), ...Object.values(SEALED)].flat()) {
    const [whole, single] = [run(stream), run(stream, [1])];
    t.false(whole.accepted || single.accepted);
    if (whole.accepted || single.accepted) continue;
    t.is(single.violation, whole.violation);
    t.is(single.offset, whole.offset);
  }
});

test("the stock programs' own files are recognized", (t) => {
  const home = mkdtempSync(path(tmpdir(), "strongroom-hints-"));
  try {
    writeFileSync(path(home, "a"), "some content\n".repeat(1000));
    const programs: [string, string[], string][] = [
      ["tar", ["-cf", "-", "a"], "a tar archive"],
      ["gzip", ["-c", "a"], "a gzip file"],
      ["xz", ["-c", "a"], "an xz file"],
      ["bzip2", ["-c", "a"], "a bzip2 file"],
      ["zstd", ["-q", "-c", "a"], "a zstd file"],
      ["openssl", ["enc", "-aes-256-cbc", "-pbkdf2", "-pass", "pass:x", "-in", "a"], "a file of `openssl enc`"],
    ];
    for (const [program, args, what] of programs) {
      let output: Buffer;
      try {
        output = execFileSync(program, args, { cwd: home, maxBuffer: 1 << 24, stdio: ["ignore", "pipe", "ignore"] });
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
        t.log(`SKIPPED: ${program} not installed`);
        continue;
      }
      t.regex(words(t, new Uint8Array(output)), new RegExp(`got ${what}`), program);
    }
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
});
