import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { requirePeer } from "./programs.ts";

const run = promisify(execFile);

/** A certificate and its key, as files in PEM. */
export interface CertificateFiles {
  readonly certificate: string;
  readonly key: string;
}

/** A certificate authority of its own for one test. */
export class Authority {
  readonly #folder: string;
  /** Its certificate, which those have to know who trust it. */
  readonly certificate: string;
  readonly #key: string;

  private constructor(folder: string, certificate: string, key: string) {
    this.#folder = folder;
    this.certificate = certificate;
    this.#key = key;
  }

  /** Makes an authority with its files in a folder. */
  static async make(folder: string, name: string): Promise<Authority> {
    const [certificate, key] = [join(folder, `${name}.pem`), join(folder, `${name}.key`)];
    await openssl([
      "req",
      "-x509",
      ...NEW_KEY,
      "-keyout",
      key,
      "-out",
      certificate,
      "-days",
      "2",
      "-subj",
      `/CN=${name}`,
    ]);
    return new Authority(folder, certificate, key);
  }

  /**
   * Issues a certificate for loopback, valid for this many days from now (in the past when negative), under a file name
   * of its own.
   */
  async issue(name: string, days = 2): Promise<CertificateFiles> {
    const at = (ending: string) => join(this.#folder, `${name}.${ending}`);
    const [certificate, key] = [at("pem"), at("key")];
    await writeFile(at("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nbasicConstraints=CA:FALSE\n");
    await openssl(["req", "-new", ...NEW_KEY, "-keyout", key, "-out", at("csr"), "-subj", `/CN=${name}`]);
    const signing = ["-CA", this.certificate, "-CAkey", this.#key, "-CAcreateserial", "-days", String(days)];
    await openssl(["x509", "-req", "-in", at("csr"), ...signing, "-extfile", at("ext"), "-out", certificate]);
    return { certificate, key };
  }
}

const NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"] as const;

async function openssl(args: readonly string[]): Promise<void> {
  await run(requirePeer("openssl"), [...args]);
}
