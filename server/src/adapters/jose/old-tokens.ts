import { createSecretKey } from "node:crypto";
import { MAX_SCOPE_ELEMENTS, MAX_SCOPE_ROLES, MAX_TOKEN_LENGTH } from "@strongroom/protocol/limits";
import { type JWTPayload, jwtVerify } from "jose";
import type { OldTokenClaims } from "../../app/ports/tokens.ts";
import { type ObjectGrant, ROLES, type Role } from "../../domain/configuration.ts";

/**
 * Verifies a token that Backup Repository issued: HS256 with its secret, and an expiry. Its claims are `login`,
 * `accessKeyName`, and `operationsScope`, base64 of JSON, `null` for none.
 * @param secret its `BR_JWT_SECRET_KEY`, as it was given there.
 * @returns undefined for whatever is not such a token, is expired, or narrows in a way that is not understood: what
 *   cannot be read must not give more than what was meant.
 */
export async function verifyOldToken(
  secret: Uint8Array,
  token: string,
  now: Date,
): Promise<OldTokenClaims | undefined> {
  if (secret.length === 0 || token.length > MAX_TOKEN_LENGTH) return undefined;
  try {
    const { payload, protectedHeader } = await jwtVerify(token, createSecretKey(secret), {
      algorithms: ["HS256"],
      currentDate: now,
      requiredClaims: ["exp"],
    });
    // Ours have a key id and an issuer, those never had.
    if (protectedHeader.kid !== undefined || payload.iss !== undefined) return undefined;
    return claimsOf(payload);
  } catch {
    return undefined;
  }
}

function claimsOf({ exp, login, accessKeyName = "", operationsScope }: JWTPayload): OldTokenClaims | undefined {
  if (typeof login !== "string" || login === "" || typeof accessKeyName !== "string" || exp === undefined)
    return undefined;
  const scope = scopeOf(operationsScope);
  return scope && { userName: login, accessKey: accessKeyName, scope, expiresAt: new Date(exp * 1000) };
}

function scopeOf(claim: unknown): ObjectGrant[] | undefined {
  if (claim === undefined || claim === null) return [];
  if (typeof claim !== "string" || !/^[A-Za-z0-9+/]*={0,2}$/.test(claim)) return undefined;
  // Throws for what is no JSON, which is caught above.
  const parsed: unknown = JSON.parse(Buffer.from(claim, "base64").toString("utf8"));
  if (parsed === null) return [];
  if (typeof parsed !== "object" || Array.isArray(parsed)) return undefined;
  const { elements = null } = parsed as { elements?: unknown };
  if (elements === null) return [];
  if (!Array.isArray(elements) || elements.length > MAX_SCOPE_ELEMENTS) return undefined;
  const grants = elements.map(grantOf);
  return grants.includes(undefined) ? undefined : (grants as ObjectGrant[]);
}

/** Roles that are not known here, and kinds of objects, give nothing, but still narrow. */
function grantOf(element: unknown): ObjectGrant | undefined {
  if (typeof element !== "object" || element === null) return undefined;
  const { type, name, roles } = element as Record<string, unknown>;
  if (typeof type !== "string" || typeof name !== "string" || !Array.isArray(roles)) return undefined;
  if (roles.length > MAX_SCOPE_ROLES) return undefined;
  const known = roles.filter((role): role is Role => ROLES.includes(role as Role));
  return { type: "collection", name, roles: type === "collection" ? [...new Set(known)] : [] };
}
