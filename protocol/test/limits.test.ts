import { readFile } from "node:fs/promises";
import test from "ava";
import { SHA256_BYTES } from "../src/digests.ts";
import * as headers from "../src/headers.ts";
import * as limits from "../src/limits.ts";

const proto = async (name: string) =>
  await readFile(new URL(`../../proto/strongroom/v1/${name}.proto`, import.meta.url), "utf8");

/** The numbers in the comments of every field of this name, without those of names such as SHA-256. */
function numbersOf(source: string, field: string): number[] {
  const fields = source.matchAll(new RegExp(`((?:^ *//.*\\n)+) *[\\w.<>, ]+ ${field} = \\d+`, "gm"));
  const comment = [...fields].map(([, text]) => text).join("");
  return [...comment.replaceAll("SHA-256", "").matchAll(/\b\d+\b/g)].map(([digits]) => Number(digits));
}

const page = ({ usual, most }: limits.PageLimit) => [usual, most];

const promises: readonly (readonly [file: string, field: string, numbers: readonly number[]])[] = [
  ["upload_service", "request_id", [limits.MAX_REQUEST_ID_LENGTH]],
  ["upload_service", "filename", [limits.MAX_FILENAME_BYTES]],
  ["upload_service", "labels", [limits.MAX_LABELS, limits.MAX_LABEL_KEY_LENGTH, limits.MAX_LABEL_VALUE_LENGTH]],
  [
    "upload_service",
    "client_metadata",
    [limits.MAX_LABELS, limits.MAX_LABEL_KEY_LENGTH, limits.MAX_METADATA_VALUE_LENGTH],
  ],
  ["upload_service", "framing_in", [limits.MAX_FRAMING_STATE_BYTES]],
  ["upload_service", "reason", [limits.MAX_REASON_LENGTH]],
  ["session_service", "description", [limits.MAX_DESCRIPTION_LENGTH]],
  ["session_service", "page_size", page(limits.PAGE)],
  ["collection_service", "page_size", page(limits.PAGE)],
];

for (const [file, field, numbers] of promises) {
  test(`the contract's comment of ${field} in ${file} says the limits`, async (t) => {
    const said = numbersOf(await proto(file), field);
    for (const number of numbers) t.true(said.includes(number), `${number} is not in ${said}`);
  });
}

test("a full chunk and a full page of digests fit into one message", (t) => {
  t.true(limits.FULL_CHUNK_BYTES < limits.MAX_CHUNK_BYTES);
  // Tag and length of each digest have two bytes.
  t.true(limits.DIGESTS_PAGE.most * (SHA256_BYTES + 2) < limits.MAX_TRANSFER_MESSAGE_BYTES);
  for (const { usual, most } of [limits.PAGE, limits.SEGMENTS_PAGE, limits.DIGESTS_PAGE]) t.true(usual <= most);
});

test("names of headers are in lower case, as HTTP/2 has them", (t) => {
  for (const name of [headers.REQUEST_ID_HEADER, headers.HEALTH_SECRET_HEADER]) t.regex(name, /^[a-z-]+$/);
});

test("the contract names the header of health secrets", async (t) => {
  t.true((await proto("collection_service")).includes(headers.HEALTH_SECRET_HEADER));
});
