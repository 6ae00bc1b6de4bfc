import { createHash, createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { open } from "node:fs/promises";
import { createSecureContext } from "node:tls";

/** Where the server's certificate and key are, and the authorities of client certificates. All are PEM. */
export interface TlsPaths {
  /** The server's certificate, and after it the intermediate ones. */
  readonly cert: string;
  /** Its private key, not encrypted. */
  readonly key: string;
  /** Certificates of the authorities that clients must have theirs from; undefined when none are asked for. */
  readonly clientCa: string | undefined;
}

/** What the files hold, checked, as Node.js takes it. */
export interface TlsMaterial {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca: Buffer | undefined;
}

/** Called with what happens to the files while the server runs. */
export interface TlsEvents {
  /** New files are good; connections that begin from now on use them. */
  changed(material: TlsMaterial, facts: CertificateFacts): void;
  /** New files are of no use, and the old ones stay in force. Called once for each such state of the files. */
  rejected(error: TlsFileError): void;
}

/** What a person wants to know of a certificate. */
export interface CertificateFacts {
  readonly subject: string;
  readonly notAfter: Date;
  /** What is doubtful about it although it is used; undefined when nothing is. */
  readonly warning: string | undefined;
}

/** A certificate or key cannot be used. The message names the option and the file, and says what to do. */
export class TlsFileError extends Error {
  override name = "TlsFileError";
}

/** Certificates and keys are a few KiB. */
const MAX_FILE_BYTES = 1024 * 1024;

/**
 * How often the files are looked at, in milliseconds. Their content is compared, since watching misses what is swapped
 * behind symbolic links.
 */
const LOOK_EVERY_MS = 5000;

interface Contents extends TlsMaterial {
  /** Digest over all files, to notice changes. */
  readonly digest: string;
}

/** Certificate and key of the server in files that may be renewed while it runs. */
export class TlsFiles {
  readonly #paths: TlsPaths;
  #current: Contents;
  #facts: CertificateFacts;
  /** State of the files at the last look, and whether it was dealt with. */
  #seen: string;
  #handled: string;
  #timer: NodeJS.Timeout | undefined;

  private constructor(paths: TlsPaths, contents: Contents, facts: CertificateFacts) {
    this.#paths = paths;
    this.#current = contents;
    this.#facts = facts;
    this.#seen = contents.digest;
    this.#handled = contents.digest;
  }

  /** Reads and checks the files. @throws TlsFileError */
  static async open(paths: TlsPaths): Promise<TlsFiles> {
    const contents = await readAll(paths);
    return new TlsFiles(paths, contents, check(paths, contents));
  }

  /** What is in force. */
  get current(): TlsMaterial {
    return this.#current;
  }

  /** Of the certificate in force. */
  get facts(): CertificateFacts {
    return this.#facts;
  }

  /** Looks at the files from time to time, until `close`. */
  watch(events: TlsEvents, everyMs: number = LOOK_EVERY_MS): void {
    const look = async () => {
      await this.look(events);
      if (this.#timer !== undefined) this.#timer = setTimeout(look, everyMs).unref();
    };
    this.#timer = setTimeout(look, everyMs).unref();
  }

  /**
   * Looks once. A change counts when it was the same at the look before: certificate and key are written one after the
   * other, and what is between is no mistake.
   */
  async look(events: TlsEvents): Promise<void> {
    let contents: Contents | undefined;
    let digest: string;
    let error: unknown;
    try {
      contents = await readAll(this.#paths);
      digest = contents.digest;
    } catch (e) {
      error = e;
      digest = String(e);
    }
    const settled = digest === this.#seen;
    this.#seen = digest;
    if (!settled || digest === this.#handled) return;
    this.#handled = digest;
    try {
      if (contents === undefined) throw error;
      if (contents.digest === this.#current.digest) return;
      const facts = check(this.#paths, contents);
      this.#current = contents;
      this.#facts = facts;
      events.changed(contents, facts);
    } catch (e) {
      if (!(e instanceof TlsFileError)) throw e;
      events.rejected(e);
    }
  }

  /** Ends watching. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}

async function readAll(paths: TlsPaths): Promise<Contents> {
  const cert = await read("--tls-cert", paths.cert);
  const key = await read("--tls-key", paths.key);
  const ca = paths.clientCa === undefined ? undefined : await read("--tls-client-ca", paths.clientCa);
  const hash = createHash("sha256");
  for (const each of [cert, key, ca ?? Buffer.alloc(0)]) hash.update(`${each.length}\n`).update(each);
  return { cert, key, ca, digest: hash.digest("hex") };
}

async function read(option: string, path: string): Promise<Buffer> {
  try {
    const file = await open(path);
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(MAX_FILE_BYTES + 1), 0, MAX_FILE_BYTES + 1, 0);
      if (bytesRead > MAX_FILE_BYTES) throw new TlsFileError(`${option} ${path} is larger than 1 MiB`);
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof TlsFileError) throw error;
    throw new TlsFileError(`${option} ${path} ${unreadable(error as NodeJS.ErrnoException)}`);
  }
}

function unreadable({ code, message }: NodeJS.ErrnoException): string {
  if (code === "ENOENT") return "does not exist";
  if (code === "EACCES") return "may not be read by the user that the server runs as";
  if (code === "EISDIR") return "is a directory; expected a file in PEM form";
  return `cannot be read: ${message}`;
}

/** Everything that can be wrong, so that it is reported here and not by a handshake. @throws TlsFileError */
function check(paths: TlsPaths, { cert, key, ca }: TlsMaterial): CertificateFacts {
  const [certificate] = certificates("--tls-cert", paths.cert, cert);
  const privateKey = keyOf(paths.key, key);
  if (!certificate!.checkPrivateKey(privateKey)) {
    throw new TlsFileError(
      `--tls-key ${paths.key} does not belong to the first certificate in --tls-cert ${paths.cert}; the ` +
        "server's own certificate comes first there, then the intermediate ones",
    );
  }
  if (ca !== undefined) certificates("--tls-client-ca", paths.clientCa!, ca);
  try {
    createSecureContext({ cert, key, ca });
  } catch (error) {
    // For example a key that is too short for OpenSSL's security level.
    throw new TlsFileError(`--tls-cert ${paths.cert} cannot be used: ${(error as Error).message}`);
  }
  const notAfter = new Date(certificate!.validTo);
  return { subject: subjectOf(certificate!), notAfter, warning: warningOf(certificate!, paths.cert) };
}

function certificates(option: string, path: string, pem: Buffer): X509Certificate[] {
  const blocks = pem.toString("latin1").match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) {
    const hint = pem.includes("PRIVATE KEY-----")
      ? "; it holds a private key: are --tls-cert and --tls-key swapped?"
      : "";
    throw new TlsFileError(`${option} ${path} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)${hint}`);
  }
  return blocks.map((block, i) => {
    try {
      return new X509Certificate(block);
    } catch {
      throw new TlsFileError(`${option} ${path}: certificate ${i + 1} in it is damaged`);
    }
  });
}

function keyOf(path: string, pem: Buffer): KeyObject {
  if (/-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED/m.test(pem.toString("latin1"))) {
    throw new TlsFileError(
      `--tls-key ${path} is encrypted, and the server has no passphrase; write one that is not with \`openssl ` +
        "pkey -in FILE -out NEW`, readable by the server alone",
    );
  }
  try {
    return createPrivateKey(pem);
  } catch {
    // OpenSSL's own words would not help, and may quote the content.
    throw new TlsFileError(`--tls-key ${path} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)`);
  }
}

function subjectOf(certificate: X509Certificate): string {
  return (certificate.subjectAltName ?? certificate.subject ?? "").slice(0, 300);
}

function warningOf(certificate: X509Certificate, path: string): string | undefined {
  const now = Date.now();
  const [from, to] = [new Date(certificate.validFrom), new Date(certificate.validTo)];
  if (to.getTime() < now) return `the certificate in ${path} expired at ${to.toISOString()}; clients will refuse it`;
  if (from.getTime() > now)
    return `the certificate in ${path} is not valid before ${from.toISOString()}; clients will refuse it`;
  return undefined;
}
