/** Words for a person that are about what was given and what is to be done. */
import { quantity } from "@strongroom/protocol/quantity";
import test from "ava";
import { checkFits } from "../src/decryption-choice.ts";
import { testContext } from "./support/context.ts";

test("a number and its noun agree", (t) => {
  t.deepEqual(
    [0, 1, 2, 1n].map((count) => quantity(count, "version")),
    ["0 versions", "1 version", "2 versions", "1 version"],
  );
});

test("--password names the ways in which a password is given", async (t) => {
  const { run, stderr } = await testContext(t);
  t.is(await run("login", "--password", "geheim"), 2);
  t.regex(stderr.text, /unknown option '--password'[\s\S]*--password-file FILE, or leave it out to be asked/);
  t.false(stderr.text.includes("geheim"));
});

test("a key of the wrong kind is said to be one", async (t) => {
  const { context } = await testContext(t);
  const sdk = await context.sdk();
  const version = { number: 2n, encryptionFormat: sdk.EncryptionFormat.AGE } as Parameters<typeof checkFits>[1];
  const decryption = { kind: "openpgp" as const, privateKeys: [new Uint8Array(1)] };
  t.throws(() => checkFits(decryption, version, sdk), {
    message: "version 2 is encrypted with age, and the private key that was given is for OpenPGP.",
  });
});
