import { type Document, isMap, isScalar, isSeq, parseDocument, stringify, type YAMLMap } from "yaml";
import type { Role } from "../domain/configuration.ts";
import { API_VERSION_OF } from "./document.ts";
import { type ObjectText, PARSE_FORM, YAML_FORM } from "./show-object.ts";

/** An access key to be made. */
export interface NewAccessKey {
  readonly name: string;
  readonly collections: readonly string[];
  readonly roles: readonly Role[];
  readonly restrictByIp: readonly string[];
}

/** An entry of a Secret. */
export interface SecretEntry {
  readonly name: string;
  readonly entry: string;
}

/** Secret for passwords of users that have none. */
const USUAL_SECRET = "strongroom-passwords";

const parse = (text: string) => parseDocument(text, PARSE_FORM);
const name = (map: YAMLMap) => map.get("name");

/** The part of a user's document that has a password: its spec, or one of its access keys. */
function holderOf(document: Document, accessKey: string | undefined): YAMLMap | undefined {
  const spec = document.get("spec", true);
  if (!isMap(spec) || accessKey === undefined) return isMap(spec) ? spec : undefined;
  const keys = spec.get("accessKeys", true);
  return isSeq(keys) ? keys.items.filter((item) => isMap(item)).find((item) => name(item) === accessKey) : undefined;
}

function reference(map: YAMLMap | undefined): SecretEntry | undefined {
  const { name: secret, entry } =
    (map?.toJSON() as { passwordFromRef?: Partial<SecretEntry> } | undefined)?.passwordFromRef ?? {};
  return typeof secret === "string" && typeof entry === "string" ? { name: secret, entry } : undefined;
}

/** Where the hash of a user, or of one of its access keys, is written now; the whole is undefined where there is none. */
export function hashPlace(
  user: ObjectText,
  accessKey: string | undefined,
): { secret: SecretEntry | undefined } | undefined {
  const holder = holderOf(parse(user.text), accessKey);
  const secret = reference(holder);
  if (secret !== undefined) return { secret };
  const inline = holder?.get("password");
  return typeof inline === "string" && inline !== "" ? { secret: undefined } : undefined;
}

/** The Secret for a new hash of a user: the one it uses already. */
export function secretFor(user: ObjectText): string {
  return reference(holderOf(parse(user.text), undefined))?.name ?? USUAL_SECRET;
}

/** A free entry of a Secret for a user or access key. */
export function freeEntry(secret: ObjectText | undefined, userName: string, accessKey: string | undefined): string {
  const used = new Set<string>();
  if (secret !== undefined) {
    const { data, stringData } = parse(secret.text).toJS() as { data?: object; stringData?: object };
    for (const entry of [...Object.keys(data ?? {}), ...Object.keys(stringData ?? {})]) used.add(entry);
  }
  const wanted = accessKey === undefined ? userName : `${userName}-${accessKey}`;
  for (let number = 1; ; number++) {
    const entry = number === 1 ? wanted : `${wanted}-${number}`;
    if (!used.has(entry)) return entry;
  }
}

/** The user with another access key, whose hash is in an entry of a Secret. */
export function withAccessKey({ text }: ObjectText, key: NewAccessKey, secret: SecretEntry): string {
  const document = parse(text);
  const spec = holderOf(document, undefined)!;
  if (!isSeq(spec.get("accessKeys", true))) spec.set("accessKeys", document.createNode([]));
  const item = document.createNode({
    name: key.name,
    passwordFromRef: secret,
    ...(key.restrictByIp.length === 0 ? {} : { restrictByIP: key.restrictByIp }),
    objects: key.collections.map((collection) => ({ name: collection, type: "collection", roles: key.roles })),
  });
  const keys = spec.get("accessKeys", true);
  if (isSeq(keys)) {
    // A list in one line stays one only while it is empty.
    if (keys.items.length === 0) keys.flow = false;
    keys.items.push(item);
  }
  return document.toString(YAML_FORM);
}

/** The user with another hash of its own, or of an access key, written into its document. */
export function withInlineHash({ text }: ObjectText, accessKey: string | undefined, hash: string): string {
  const document = parse(text);
  setText(document, holderOf(document, accessKey)!, "password", hash);
  return document.toString(YAML_FORM);
}

/** The user whose hash, or that of an access key, is in another entry of a Secret. */
export function withReference({ text }: ObjectText, accessKey: string | undefined, secret: SecretEntry): string {
  const document = parse(text);
  holderOf(document, accessKey)!.set("passwordFromRef", document.createNode(secret));
  return document.toString(YAML_FORM);
}

/** A Secret with a hash in an entry; a new one where there is none. */
export function withEntry(
  secret: ObjectText | undefined,
  { name, entry }: SecretEntry,
  hash: string,
  namespace: string,
): string {
  const encoded = Buffer.from(hash).toString("base64");
  if (secret === undefined) {
    const metadata = namespace === "" ? { name } : { name, namespace };
    const object = {
      apiVersion: API_VERSION_OF.get("Secret"),
      kind: "Secret",
      metadata,
      type: "Opaque",
      data: { [entry]: encoded },
    };
    return stringify(object, YAML_FORM);
  }
  const document = parse(secret.text);
  const plain = document.get("stringData", true);
  if (isMap(plain) && plain.has(entry)) setText(document, plain, entry, hash);
  else {
    if (!isMap(document.get("data", true))) document.set("data", document.createNode({}));
    const data = document.get("data", true) as YAMLMap;
    if (data.items.length === 0) data.flow = false;
    setText(document, data, entry, encoded);
  }
  return document.toString(YAML_FORM);
}

/** Sets a text and keeps the comment beside it. */
function setText(document: Document, map: YAMLMap, field: string, text: string): void {
  const there = map.get(field, true);
  // An alias, or a text that others refer to, is not theirs to change.
  if (isScalar(there) && there.anchor === undefined) there.value = text;
  else map.set(field, document.createNode(text));
}
