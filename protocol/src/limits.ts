/*
 * Limits of the contract that client and server must agree on. What the server's operator or a collection decides is no
 * part of it. The comments of `proto/strongroom/v1` repeat some for people who read nothing else.
 */

/** How many items a page of a list has. */
export interface PageLimit {
  /** When the caller asks for none. */
  readonly usual: number;
  /** However many the caller asks for. */
  readonly most: number;
}

/** Most bytes of one chunk of WriteSegment. */
export const MAX_CHUNK_BYTES = 1024 * 1024;

/**
 * Bytes of a full chunk as Strongroom sends it: a little less than the most, so that the message around it still fits
 * one HTTP/2 write.
 */
export const FULL_CHUNK_BYTES = MAX_CHUNK_BYTES - 64;

/** What a message has beside its chunk, in bytes, is less than this. */
export const MESSAGE_OVERHEAD_BYTES = 64 * 1024;

/** Most bytes of a message with a chunk in it; a full page of digests is smaller. */
export const MAX_TRANSFER_MESSAGE_BYTES = MAX_CHUNK_BYTES + MESSAGE_OVERHEAD_BYTES;

/** Most segments of an upload; the index of one is below or at it. */
export const MAX_SEGMENTS = 1_000_000;

/** Most bytes of the state of the ciphertext check, `framing_in` of a segment. */
export const MAX_FRAMING_STATE_BYTES = 512;

/** Uploads, versions, collections, sessions. */
export const PAGE: PageLimit = { usual: 100, most: 1000 };

/** Segments of an upload. */
export const SEGMENTS_PAGE: PageLimit = { usual: 1000, most: 1000 };

/** Digests of a version's segments, 32 bytes each. */
export const DIGESTS_PAGE: PageLimit = { usual: 10_000, most: 10_000 };

/** Most characters of the name of a collection or a user. */
export const MAX_NAME_LENGTH = 253;

/** Most characters of the name that a login gives: a user's name, `$`, and an access key's. */
export const MAX_LOGIN_NAME_LENGTH = 512;

/** Most bytes of the documents of one ApplyObjects. */
export const MAX_DOCUMENTS_BYTES = 512 * 1024;

/** Most characters of a request id. */
export const MAX_REQUEST_ID_LENGTH = 128;

/** Most characters of a session's description. */
export const MAX_DESCRIPTION_LENGTH = 255;

/** Most characters of the reason of an abort, longer ones are cut; and of that of a hold, longer ones are refused. */
export const MAX_REASON_LENGTH = 1000;

/** Most bytes of a file name in UTF-8: some file systems take 255, and extensions may be added. */
export const MAX_FILENAME_BYTES = 240;

/** Most labels, and most entries of the client's metadata. */
export const MAX_LABELS = 32;

/** Most characters of a label's key, and of a key of the client's metadata. */
export const MAX_LABEL_KEY_LENGTH = 63;

/** Most characters of a label's value. */
export const MAX_LABEL_VALUE_LENGTH = 255;

/** Most characters of a value of the client's metadata. */
export const MAX_METADATA_VALUE_LENGTH = 1024;

/** Most bytes of an upload's labels and client metadata together: keys and values, in UTF-8. */
export const MAX_LABELS_AND_METADATA_BYTES = 8 * 1024;

/**
 * A page of a list ends with the item that brings it to this many bytes, and has at least one, so that no list is
 * larger than the 4 MiB that gRPC clients take by default.
 */
export const PAGE_BYTES = 1024 * 1024;

/** Most elements of a session's scope. */
export const MAX_SCOPE_ELEMENTS = 100;

/** Most roles of one element of a scope, repeated ones counted. */
export const MAX_SCOPE_ROLES = 16;

/** Most characters of a session token. */
export const MAX_TOKEN_LENGTH = 4096;
