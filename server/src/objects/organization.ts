import { parseSize } from "@strongroom/protocol/sizes";
import type { OrganizationSpec } from "../domain/configuration.ts";
import type { ConfigObject } from "./document.ts";

/** Reads an object of kind BackupOrganization; what is wrong is reported, and the result then not to be used. */
export function readOrganization({ name, root }: ConfigObject): OrganizationSpec {
  const spec = root.get("spec")?.object();
  root.warnUnknown();
  const maxTotalSize = spec?.get("maxTotalSize")?.parsed(parseSize);
  spec?.get("description")?.text(); // For the people who read the file.
  spec?.warnUnknown();
  return { name, maxTotalSize };
}
