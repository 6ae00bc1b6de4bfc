import { createHash, createPublicKey, createSecretKey, randomBytes, randomUUID } from "node:crypto";
import test from "ava";
import { base64url, exportJWK, exportSPKI, generateKeyPair, importJWK, type JWK, SignJWT, UnsecuredJWT } from "jose";
import { JoseSigner } from "../src/adapters/jose/jose-signer.ts";
import { MAX_SIGNING_KEYS } from "../src/adapters/jose/key-set.ts";
import type { SigningKeyRow } from "../src/app/ports/database.ts";
import { openMemoryDatabase } from "./support/memory-database.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const START = new Date("2026-01-01T00:00:00Z");
const SESSION = 6 * HOUR;

let now = START;
const database = await openMemoryDatabase(() => now);
test.after.always(async () => await database.close());

test.beforeEach(async () => {
  now = START;
  await database.transaction(async (tx) => {
    for (const key of await tx.sessions.signingKeys()) await tx.sessions.deleteSigningKey(key.id);
    await tx.sessions.deleteEnded(after(10_000 * DAY));
  });
});

const after = (ms: number): Date => new Date(START.getTime() + ms);

async function keys(): Promise<SigningKeyRow[]> {
  return await database.transaction(async (tx) => await tx.sessions.signingKeys());
}

async function open(at: Date = now): Promise<JoseSigner> {
  now = at;
  return await JoseSigner.fromDatabase(database);
}

/** A token with the row of its session, which is what its key is kept for. */
async function issue(signer: JoseSigner, at: Date = now, lasts = SESSION): Promise<string> {
  const expiresAt = new Date(at.getTime() + lasts);
  const token = await signer.sign({ subject: "ann", issuedAt: at, expiresAt });
  const id = createHash("sha256").update(token).digest("hex");
  const chain = { chainId: id, chainBeganAt: at, chainEndsAt: null, createdAt: at, expiresAt, revokedAt: null };
  const of = { userName: "ann", accessKey: "", scope: [], description: "", address: "", fingerprint: null };
  await database.transaction(async (tx) => await tx.sessions.insert({ id, ...chain, ...of }));
  return token;
}

async function sign(signer: JoseSigner, at: Date = now): Promise<string> {
  return await signer.sign({ subject: "ann", issuedAt: at, expiresAt: new Date(at.getTime() + SESSION) });
}

function decoded(token: string): { header: Record<string, unknown>; claims: Record<string, unknown> } {
  const [header = "", claims = ""] = token.split(".");
  const read = (part: string) => JSON.parse(Buffer.from(part, "base64url").toString()) as Record<string, unknown>;
  return { header: read(header), claims: read(claims) };
}

/** The parts of a token with another header. */
function withHeader(token: string, change: Record<string, unknown>): string {
  const { header } = decoded(token);
  const [, claims, signature] = token.split(".");
  return [base64url.encode(JSON.stringify({ ...header, ...change })), claims, signature].join(".");
}

const SECRET = Buffer.from("0123456789abcdef0123456789abcdef");

async function withBoth(secretUse: "sign" | "verify"): Promise<JoseSigner> {
  return await JoseSigner.fromDatabase(database, { secret: SECRET, secretUse });
}

const signers: [name: string, open: () => Promise<JoseSigner>][] = [
  ["key set", open],
  ["shared secret beside the key set", async () => await withBoth("sign")],
  ["key set beside a shared secret", async () => await withBoth("verify")],
  ["shared secret", async () => JoseSigner.withSecret(Buffer.from("0123456789abcdef0123456789abcdef"))],
];

for (const [name, make] of signers) {
  test.serial(`${name}: a token is valid until it expires, to the second`, async (t) => {
    const signer = await make();
    const token = await sign(signer, START);
    t.true(await signer.verify(token, START));
    t.true(await signer.verify(token, after(SESSION - 1)));
    t.false(await signer.verify(token, after(SESSION)));
    t.false(await signer.verify(token, after(SESSION + DAY)));
  });

  test.serial(`${name}: a token says who and until when, and no secret`, async (t) => {
    const { header, claims } = decoded(await sign(await make(), START));
    t.is(claims.sub, "ann");
    t.is(claims.iss, "strongroom");
    t.is(claims.iat, START.getTime() / 1000);
    t.is(claims.exp, (START.getTime() + SESSION) / 1000);
    t.deepEqual(Object.keys(claims).sort(), ["exp", "iat", "iss", "jti", "sub"]);
    t.deepEqual(Object.keys(header).sort(), ["alg", "kid", "typ"]);
  });

  test.serial(`${name}: every token differs, also at the same time for the same user`, async (t) => {
    const signer = await make();
    t.not(await sign(signer, START), await sign(signer, START));
  });

  test.serial(`${name}: a changed token is refused`, async (t) => {
    const signer = await make();
    const token = await sign(signer, START);
    const [header = "", claims = "", signature = ""] = token.split(".");
    const other = base64url.encode(JSON.stringify({ ...decoded(token).claims, sub: "admin" }));
    const flipped = `${signature.startsWith("A") ? "B" : "A"}${signature.slice(1)}`;
    const changed = [
      [header, other, signature].join("."),
      [header, claims, flipped].join("."),
      [header, claims, ""].join("."),
      [header, claims].join("."),
      [header, claims, signature, ""].join("."),
      ` ${token}`,
      token.slice(0, -4),
      "",
      "..",
      "garbage",
      "x".repeat(10_000),
    ];
    for (const bad of changed) t.false(await signer.verify(bad, START), bad.slice(0, 60));
    t.true(await signer.verify(token, START));
  });

  test.serial(`${name}: a token without signature (alg none) is refused`, async (t) => {
    const signer = await make();
    const token = await sign(signer, START);
    const unsecured = new UnsecuredJWT(decoded(token).claims).encode();
    t.false(await signer.verify(unsecured, START));
    for (const alg of ["none", "None", "NONE", ""]) {
      const [header, claims] = withHeader(token, { alg }).split(".");
      t.false(await signer.verify(`${header}.${claims}.`, START), alg);
      t.false(await signer.verify(withHeader(token, { alg }), START), alg);
    }
  });

  test.serial(`${name}: unknown, missing and strange key ids are refused`, async (t) => {
    const signer = await make();
    const token = await sign(signer, START);
    for (const kid of [randomUUID(), "", undefined, null, 5, "__proto__", "constructor", { toString: 1 }]) {
      t.false(await signer.verify(withHeader(token, { kid }), START), String(JSON.stringify(kid)));
    }
  });

  test.serial(`${name}: a token of another issuer is refused`, async (t) => {
    const signer = await make();
    const { kid, alg } = decoded(await sign(signer, START)).header as { kid: string; alg: string };
    const row = (await keys()).find((k) => k.id === kid);
    const key =
      row === undefined
        ? createSecretKey(Buffer.from("0123456789abcdef0123456789abcdef"))
        : await importJWK(row.jwk as JWK, "EdDSA");
    const of = (issuer: string) => new SignJWT().setProtectedHeader({ alg, kid }).setIssuer(issuer).setSubject("ann");
    const end = after(SESSION);
    t.true(await signer.verify(await of("strongroom").setExpirationTime(end).sign(key), START), "the way of this test");
    t.false(await signer.verify(await of("other").setExpirationTime(end).sign(key), START));
  });
}

test.serial("a token of another key under the same id is refused", async (t) => {
  const signer = await open();
  const { kid } = decoded(await sign(signer)).header as { kid: string };
  const { privateKey } = await generateKeyPair("EdDSA");
  const forged = await new SignJWT(decoded(await sign(signer)).claims)
    .setProtectedHeader({ alg: "EdDSA", kid })
    .sign(privateKey);
  t.false(await signer.verify(forged, START));
});

test.serial("a token that was signed with the public key as an HS256 secret is refused", async (t) => {
  const signer = await open();
  const token = await sign(signer);
  const { kid } = decoded(token).header as { kid: string };
  const { d: _, ...jwk } = (await keys())[0]!.jwk as JWK;
  const pem = await exportSPKI(createPublicKey({ key: jwk as never, format: "jwk" }) as never);
  const secrets = [
    Buffer.from(pem),
    Buffer.from(jwk.x!, "base64url"),
    Buffer.from(JSON.stringify(jwk)),
    Buffer.alloc(32),
  ];
  for (const secret of secrets) {
    const forged = await new SignJWT(decoded(token).claims)
      .setProtectedHeader({ alg: "HS256", kid })
      .sign(createSecretKey(secret));
    t.false(await signer.verify(forged, START));
  }
});

test.serial("a key brought along in the header is not looked at", async (t) => {
  const signer = await open();
  const token = await sign(signer);
  const { kid } = decoded(token).header as { kid: string };
  const { publicKey, privateKey } = await generateKeyPair("EdDSA", { extractable: true });
  for (const id of [kid, "mine"]) {
    const forged = await new SignJWT(decoded(token).claims)
      .setProtectedHeader({ alg: "EdDSA", kid: id, jwk: await exportJWK(publicKey) })
      .sign(privateKey);
    t.false(await signer.verify(forged, START));
  }
});

test.serial(
  "tokens of a key set and of a shared secret are not taken for each other, nor those of another secret",
  async (t) => {
    const set = await open();
    const one = JoseSigner.withSecret(randomBytes(32));
    const two = JoseSigner.withSecret(randomBytes(32));
    t.false(await set.verify(await sign(one), START));
    t.false(await one.verify(await sign(set), START));
    t.false(await one.verify(await sign(two), START));
  },
);

test.serial("one moves from a key set to a secret and back without logging anybody out", async (t) => {
  const set = await open();
  const [signs, verifies] = [await withBoth("sign"), await withBoth("verify")];
  const only = await JoseSigner.fromDatabase(database, { secret: SECRET });
  const tokens = [await sign(set), await sign(signs), await sign(verifies), await sign(only)];
  t.deepEqual(
    tokens.map((token) => decoded(token).header.alg),
    ["EdDSA", "HS256", "EdDSA", "HS256"],
  );
  const taken = async (signer: JoseSigner) =>
    await Promise.all(tokens.map(async (token) => await signer.verify(token, START)));
  t.deepEqual(await taken(signs), [true, true, true, true]);
  t.deepEqual(await taken(verifies), [true, true, true, true]);
  t.deepEqual(await taken(set), [true, false, true, false]);
  t.deepEqual(await taken(only), [false, true, false, true]);
  await t.throwsAsync(only.rotate(), { message: /shared secret/ });
  await t.throwsAsync(signs.rotate(), { message: /shared secret/ });
});

/** Every key there is with every algorithm a token can name, under every id: only the two right pairs are taken. */
test.serial("no algorithm is taken with the key of another, whatever a token says", async (t) => {
  const signer = await withBoth("verify");
  const good = await sign(signer);
  const { claims } = decoded(good);
  const row = (await keys())[0]!;
  const { d: _, ...publicJwk } = row.jwk as JWK;
  const pem = await exportSPKI(createPublicKey({ key: publicJwk as never, format: "jwk" }) as never);
  const hmacs: [string, Uint8Array][] = [
    ["the secret", SECRET],
    ["the public key", Buffer.from(publicJwk.x!, "base64url")],
    ["the public key as PEM", Buffer.from(pem)],
    ["the private key", Buffer.from((row.jwk as JWK).d!, "base64url")],
    ["nothing", Buffer.alloc(64)],
  ];
  const own = await importJWK(row.jwk as JWK, "EdDSA");
  const taken: string[] = [];
  for (const kid of [row.id, "secret", undefined, ""]) {
    const header = kid === undefined ? {} : { kid };
    for (const [name, secret] of hmacs)
      for (const alg of ["HS256", "HS384", "HS512"]) {
        const padded = Buffer.concat([secret, Buffer.alloc(64)]).subarray(0, Math.max(secret.length, 32));
        const forged = await new SignJWT(claims).setProtectedHeader({ ...header, alg }).sign(createSecretKey(padded));
        if (await signer.verify(forged, START)) taken.push(`${alg} with ${name} as ${kid}`);
      }
    for (const alg of ["EdDSA", "Ed25519"]) {
      const forged = await new SignJWT(claims).setProtectedHeader({ ...header, alg }).sign(own);
      if (await signer.verify(forged, START)) taken.push(`${alg} as ${kid}`);
    }
    for (const alg of ["RS256", "ES256", "PS256"] as const) {
      const { privateKey } = await generateKeyPair(alg);
      const forged = await new SignJWT(claims).setProtectedHeader({ ...header, alg }).sign(privateKey);
      if (await signer.verify(forged, START)) taken.push(`${alg} as ${kid}`);
    }
  }
  t.deepEqual(taken, [`EdDSA as ${row.id}`, "HS256 with the secret as secret"]);
});

test("another algorithm is refused, also with the right secret", async (t) => {
  const secret = randomBytes(64);
  const signer = JoseSigner.withSecret(secret);
  const { claims, header } = decoded(await sign(signer, START));
  for (const alg of ["HS256", "HS384", "HS512"]) {
    const token = await new SignJWT(claims).setProtectedHeader({ ...header, alg }).sign(createSecretKey(secret));
    t.is(await signer.verify(token, START), alg === "HS256", alg);
  }
});

test("a shared secret has at least 32 bytes", async (t) => {
  for (const length of [0, 1, 16, 31]) {
    const secret = new Uint8Array(length).fill(0x61);
    const error = t.throws(() => JoseSigner.withSecret(secret), { instanceOf: RangeError, message: /at least 32/ });
    t.false(error!.message.includes("aaaa"), "the secret is not shown");
  }
  const signer = JoseSigner.withSecret(new Uint8Array(32).fill(0x61));
  t.true(await signer.verify(await sign(signer, START), START));
});

test("two servers with one shared secret take each other's tokens", async (t) => {
  const secret = randomBytes(48);
  const [one, two] = [JoseSigner.withSecret(secret), JoseSigner.withSecret(secret)];
  t.true(await two.verify(await sign(one, START), START));
  t.true(await one.verify(await sign(two, START), START));
});

test.serial("two servers on one database share the key and take each other's tokens", async (t) => {
  const one = await open();
  const two = await open(after(HOUR));
  t.is((await keys()).length, 1);
  t.true(await two.verify(await sign(one), now));
  t.true(await one.verify(await sign(two), now));
});

test.serial("a restart keeps the sessions", async (t) => {
  const token = await sign(await open());
  t.true(await (await open(after(HOUR))).verify(token, now));
});

test.serial("the key is kept as an Ed25519 key", async (t) => {
  await open();
  const [row] = await keys();
  t.is(row?.jwk.kty, "OKP");
  t.is(row?.jwk.crv, "Ed25519");
  t.deepEqual(row?.createdAt, START);
});

test.serial("a key signs for 90 days", async (t) => {
  const first = decoded(await sign(await open())).header.kid;
  const onTheDay = decoded(await sign(await open(after(90 * DAY)))).header.kid;
  t.is(onTheDay, first);
  t.is((await keys()).length, 1);
  const laterOn = decoded(await sign(await open(after(90 * DAY + 1)))).header.kid;
  t.not(laterOn, first);
});

test.serial(
  "after 90 days a new key signs, the old one still verifies until its last token has expired, then it goes",
  async (t) => {
    const old = await open();
    const rotation = 90 * DAY + 1;
    const before = await issue(old, after(rotation - 1), 3 * DAY);
    const renewed = await open(after(rotation));
    t.true(await renewed.verify(before, now), "a token of the old key, signed a moment before");
    const [newKey, oldKey] = (await keys()).map((key) => key.id);
    t.is(decoded(before).header.kid, oldKey);
    t.is(decoded(await sign(renewed)).header.kid, newKey);

    // The last token of the old key is gone after that, and so is the key.
    const stillThere = await open(after(rotation + 3 * DAY - 1001));
    t.deepEqual(
      (await keys()).map((key) => key.id),
      [newKey, oldKey],
    );
    t.true(await stillThere.verify(before, now));
    const gone = await open(after(rotation + 3 * DAY));
    t.deepEqual(
      (await keys()).map((key) => key.id),
      [newKey],
    );
    t.true(await gone.verify(await sign(renewed), now));
    t.false(await gone.verify(before, after(rotation)), "its key is forgotten");
  },
);

test.serial(
  "a key that nobody needs stays for a day after its successor was made, in which others may sign",
  async (t) => {
    await open();
    const rotation = 90 * DAY + 1;
    await open(after(rotation));
    await open(after(rotation + DAY - 1));
    t.is((await keys()).length, 2);
    await open(after(rotation + DAY));
    t.is((await keys()).length, 1);
  },
);

test.serial("a key that a command made signs at once, and those before it go with their last session", async (t) => {
  const one = await open();
  const [two, three] = [await open(), await open()];
  const [short, long] = [await issue(one), await issue(two, now, 400 * DAY)];
  now = after(HOUR);
  const id = await one.rotate();
  const renewed = await issue(one);
  t.is(decoded(renewed).header.kid, id);
  t.not(decoded(short).header.kid, id);
  for (const signer of [one, two, three])
    for (const token of [short, long, renewed]) t.true(await signer.verify(token, now), "on every server, at once");

  const others = await issue(two, now, 400 * DAY);
  t.is(decoded(others).header.kid, id, "whoever has seen it signs with it");
  now = after(300 * DAY);
  const late = await open();
  t.true(await late.verify(long, now));
  await database.transaction(async (tx) => await tx.sessions.revoke({ userName: "ann" }, now));
  t.is((await open(after(302 * DAY)).then(keys)).length, 1, "ended sessions keep no key");
});

test.serial("a command can make only so many keys", async (t) => {
  const signer = await open();
  for (let n = 1; n < MAX_SIGNING_KEYS; n++) await signer.rotate();
  await t.throwsAsync(signer.rotate(), { message: /as many as there may be/ });
  t.is((await keys()).length, MAX_SIGNING_KEYS);
  now = after(DAY);
  await signer.rotate();
  t.is((await keys()).length, 2, "they are younger than a day no more");
});

test.serial("an id that nobody has does not hide a key that is made right after", async (t) => {
  const [one, two] = [await open(), await open()];
  const token = await sign(one);
  t.false(await two.verify(withHeader(token, { kid: randomUUID() }), now));
  await one.rotate();
  t.true(await two.verify(await sign(one), now));
});

test.serial("long after, several keys have come and only one is left", async (t) => {
  const ids = new Set<unknown>();
  for (let quarter = 0; quarter < 4; quarter++) {
    const signer = await open(after(quarter * 91 * DAY));
    ids.add(decoded(await sign(signer)).header.kid);
  }
  t.is(ids.size, 4);
  t.is((await keys()).length, 2, "the one that signs and the one before it");
  await open(after(3 * 91 * DAY + 2 * DAY));
  t.is((await keys()).length, 1);
});

test.serial("a clock that went back makes no new key and loses none", async (t) => {
  const token = await sign(await open());
  const back = await open(new Date(START.getTime() - 365 * DAY));
  t.is((await keys()).length, 1);
  t.true(await back.verify(token, START));
});

test.serial("a server that runs on takes tokens signed with a key that another made later", async (t) => {
  const old = await open();
  const renewed = await open(after(91 * 24 * 3_600_000));
  t.true(await old.verify(await sign(renewed), now));
});

test.serial("a secret is changed without ending a session: the first signs, and tokens of all are valid", async (t) => {
  const [older, newer, third] = [randomBytes(32), randomBytes(32), randomBytes(32)];
  const before = await sign(JoseSigner.withSecret(older));
  const both = JoseSigner.withSecret(newer, { otherSecrets: [older] });
  t.true(await both.verify(before, now));
  const after = await sign(both);
  t.true(await both.verify(after, now));
  t.true(await JoseSigner.withSecret(newer).verify(after, now), "the first signed it");
  t.false(await JoseSigner.withSecret(older).verify(after, now));
  t.true(
    await JoseSigner.withSecret(older, { otherSecrets: [newer] }).verify(after, now),
    "a server that is told first",
  );
  t.false(await both.verify(await sign(JoseSigner.withSecret(third)), now));
  t.throws(() => JoseSigner.withSecret(newer, { otherSecrets: [randomBytes(31)] }), { message: /at least 32/ });
  const beside = await JoseSigner.fromDatabase(database, { secret: newer, otherSecrets: [older], secretUse: "verify" });
  t.true(await beside.verify(before, now));
  t.true(await beside.verify(after, now));
});
