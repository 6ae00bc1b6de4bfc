import type { DescEnum } from "@bufbuild/protobuf";
import { RoleSchema } from "@strongroom/gen/strongroom/v1/resources_pb";
import { ObjectType, ObjectTypeSchema, type ScopeElement } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { SHA256_BYTES } from "@strongroom/protocol/digests";
import {
  MAX_FILENAME_BYTES,
  MAX_LABEL_KEY_LENGTH,
  MAX_LABELS,
  MAX_LABELS_AND_METADATA_BYTES,
  MAX_NAME_LENGTH,
  MAX_SCOPE_ELEMENTS,
  MAX_SCOPE_ROLES,
  type PageLimit,
} from "@strongroom/protocol/limits";
import type { ObjectGrant } from "../domain/configuration.ts";
import { DomainError, invalidField } from "../domain/errors.ts";
import { bytesOfMap } from "../domain/page.ts";
import { roleOf } from "./messages.ts";

/*
 * Shape checks of requests, in one place: what a field may look like, before any use case sees it.
 */

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** The id of an upload. One that cannot exist has the answer of one that does not. */
export function uploadIdOf(value: string): string {
  if (UUID.test(value)) return value;
  if (value === "") throw invalidField("upload_id", "expected the upload_id that CreateUpload gave");
  throw new DomainError(
    "UPLOAD_NOT_FOUND",
    "there is no such upload of yours; expected the upload_id that CreateUpload gave",
    {
      metadata: { upload_id: value.slice(0, 64) },
    },
  );
}

/** The name of a collection. */
export function collectionNameOf(value: string): string {
  if (value === "" || value.length > MAX_NAME_LENGTH)
    throw invalidField("collection", "expected the name of a collection");
  return textOf("collection", value, MAX_NAME_LENGTH);
}

/** A SHA-256 digest. */
export function sha256Of(field: string, value: Uint8Array): Uint8Array {
  if (value.length !== SHA256_BYTES)
    throw invalidField(field, `expected a SHA-256 digest of ${SHA256_BYTES} bytes, got ${value.length} bytes`);
  return value;
}

/** A text of at most `most` characters without control characters. */
export function textOf(field: string, value: string, most: number): string {
  if (value.length > most) throw invalidField(field, `expected at most ${most} characters, got ${value.length}`);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (/[\u0000-\u001f\u007f]/.test(value) || !value.isWellFormed())
    throw invalidField(field, "control characters are not allowed");
  return value;
}

/** The file name of a version; empty for none. */
export function filenameOf(value: string): string {
  textOf("filename", value, MAX_FILENAME_BYTES);
  if (/[/\\]/.test(value) || value.startsWith(".")) {
    throw invalidField("filename", "expected a plain file name without slashes and without a dot at the beginning");
  }
  if (Buffer.byteLength(value) > MAX_FILENAME_BYTES)
    throw invalidField("filename", `expected at most ${MAX_FILENAME_BYTES} bytes`);
  return value;
}

/** Labels or metadata. */
export function mapOf(field: string, value: Record<string, string>, mostValue: number): Record<string, string> {
  const entries = Object.entries(value);
  if (entries.length > MAX_LABELS)
    throw invalidField(field, `expected at most ${MAX_LABELS} entries, got ${entries.length}`);
  for (const [key, text] of entries) {
    if (key === "") throw invalidField(field, `expected keys of 1 to ${MAX_LABEL_KEY_LENGTH} characters`);
    textOf(field, key, MAX_LABEL_KEY_LENGTH);
    textOf(`${field}[${key}]`, text, mostValue);
  }
  return value;
}

/** Requires labels and client metadata that are small together: a version keeps both. */
export function requireSmall(labels: Record<string, string>, clientMetadata: Record<string, string>): void {
  const bytes = bytesOfMap(labels) + bytesOfMap(clientMetadata);
  if (bytes <= MAX_LABELS_AND_METADATA_BYTES) return;
  throw invalidField(
    "labels",
    `expected at most ${MAX_LABELS_AND_METADATA_BYTES} bytes of labels and client_metadata together, got ${bytes}`,
  );
}

/** The scope of a session: each role once. */
export function scopeOf(elements: readonly Pick<ScopeElement, "type" | "name" | "roles">[]): ObjectGrant[] {
  if (elements.length > MAX_SCOPE_ELEMENTS)
    throw invalidField("scope", `expected at most ${MAX_SCOPE_ELEMENTS} elements, got ${elements.length}`);
  return elements.map((element, i) => {
    const field = `scope[${i}]`;
    if (element.type !== ObjectType.COLLECTION)
      throw invalidField(
        `${field}.type`,
        `expected OBJECT_TYPE_COLLECTION, got ${enumName(ObjectTypeSchema, element.type)}`,
      );
    textOf(`${field}.name`, element.name, MAX_NAME_LENGTH);
    if (element.roles.length > MAX_SCOPE_ROLES)
      throw invalidField(
        `${field}.roles`,
        `expected at most ${MAX_SCOPE_ROLES}, each role once, got ${element.roles.length}`,
      );
    const roles = element.roles.map((value) => {
      const role = roleOf(value);
      if (role === undefined)
        throw invalidField(
          `${field}.roles`,
          `expected roles such as ROLE_BACKUP_UPLOADER, got ${enumName(RoleSchema, value)}`,
        );
      return role;
    });
    return { type: "collection", name: element.name, roles: [...new Set(roles)] };
  });
}

/** A count of bytes, at least 0. */
export function byteCountOf(field: string, value: bigint): bigint {
  if (value < 0n) throw invalidField(field, `expected a count of bytes, at least 0, got ${value}`);
  return value;
}

/** A day of the calendar, `2026-01-31`; undefined for an empty text. */
export function dayOf(field: string, text: string): string | undefined {
  if (text === "") return undefined;
  // A day that its month does not have becomes another one, or none.
  const day = /^\d{4}-\d\d-\d\d$/.test(text) ? new Date(`${text}T00:00:00Z`) : undefined;
  if (day !== undefined && !Number.isNaN(day.getTime()) && day.toISOString().startsWith(text)) return text;
  throw invalidField(field, "expected a day that there is, such as 2026-01-31");
}

/** A number of versions, at least 0. */
export function versionCountOf(field: string, value: bigint): bigint {
  if (value < 0n) throw invalidField(field, `expected a number of versions, at least 0, got ${value}`);
  return value;
}

/** The name of a value of an enumeration, or its number when the contract has none. */
export function enumName(schema: DescEnum, value: number): string {
  return schema.value[value]?.name ?? String(value);
}

/** How many items a page may have. */
export function pageSizeOf(asked: number, { usual, most }: PageLimit): number {
  if (asked < 0) throw invalidField("page_size", `expected at least 0 (0 means ${usual}), got ${asked}`);
  return asked === 0 ? usual : Math.min(asked, most);
}

/** Makes an opaque page token of where the next page begins. `list` keeps tokens of different lists apart. */
export function pageToken(list: string, position: string | undefined): string {
  return position === undefined ? "" : Buffer.from(JSON.stringify([list, position])).toString("base64url");
}

/** Where a page begins; undefined for the first. */
export function pagePosition(list: string, token: string, form: RegExp): string | undefined {
  if (token === "") return undefined;
  try {
    const [of, position] = JSON.parse(Buffer.from(token.slice(0, 1024), "base64url").toString()) as [unknown, unknown];
    if (of === list && typeof position === "string" && form.test(position)) return position;
  } catch {
    // Falls through to the refusal.
  }
  throw new DomainError("PAGE_TOKEN_INVALID", "the page token was not made by this list; begin again without one");
}
