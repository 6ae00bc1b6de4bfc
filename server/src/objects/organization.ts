import { parseSize, quoted, ValueError } from "@strongroom/protocol/sizes";
import type { OrganizationSpec } from "../domain/configuration.ts";
import type { ConfigObject } from "./document.ts";

/** Reads an object of kind BackupOrganization; what is wrong is reported, and the result then not to be used. */
export function readOrganization({ name, root }: ConfigObject): OrganizationSpec {
  const spec = root.get("spec")?.object();
  root.warnUnknown();
  const maxTotalSize = spec?.get("maxTotalSize")?.parsed(parseSize);
  const maxUploadRate = spec?.get("maxUploadRate")?.parsed(parseRate);
  const maxParallelSegments = spec?.get("maxParallelSegments")?.integer(1, 1000);
  spec?.get("description")?.text(); // For the people who read the file.
  spec?.warnUnknown();
  return { name, maxTotalSize, maxUploadRate, maxParallelSegments };
}

/** A chunk must not wait for longer than a store waits for its next bytes. */
const LEAST_RATE = 1024n * 1024n;

function parseRate(text: string): bigint {
  const rate = parseSize(text);
  if (rate < LEAST_RATE) throw new ValueError(`expected at least 1M (a second), got ${quoted(text)}`);
  return rate;
}
