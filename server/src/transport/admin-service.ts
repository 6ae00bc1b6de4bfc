import type { ServiceImpl } from "@connectrpc/connect";
import { type AdminService, ObjectFormat, ObjectFormatSchema } from "@strongroom/gen/strongroom/v1/admin_service_pb";
import { MAX_NAME_LENGTH, PAGE } from "@strongroom/protocol/limits";
import { getObject, listObjects, OBJECT_KINDS, type SeeObjectsDeps } from "../app/objects/see-objects.ts";
import type { ObjectEntry, ObjectName } from "../app/ports/config-objects.ts";
import { invalidField } from "../domain/errors.ts";
import { callerOf } from "./connect-calls.ts";
import { enumName, pagePosition, pageSizeOf, pageToken, textOf } from "./shapes.ts";

/** AdminService of the contract. */
export function adminService(deps: SeeObjectsDeps): ServiceImpl<typeof AdminService> {
  return {
    async getObject(req, context) {
      const { entry, document } = await getObject(deps, callerOf(context.values), {
        ...objectNameOf(req),
        effective: req.effective,
        format: formatOf(req.format),
      });
      return { object: objectMessage(entry), document };
    },

    async listObjects(req, context) {
      const { objects, nextAfter } = listObjects(deps, callerOf(context.values), {
        kind: req.kind === "" ? "" : kindOf(req.kind),
        namespace: textOf("namespace", req.namespace, MAX_NAME_LENGTH),
        after: pagePosition("objects", req.pageToken, /^[^\n]{1,400}$/),
        pageSize: pageSizeOf(req.pageSize, PAGE),
      });
      return { objects: objects.map(objectMessage), nextPageToken: pageToken("objects", nextAfter) };
    },
  };
}

/** An object as a message. */
export function objectMessage({ kind, name, namespace, file, line, revision }: ObjectEntry) {
  return { kind, name, namespace, file, line, revision };
}

function objectNameOf({ kind, name }: { kind: string; name: string }): ObjectName {
  if (name === "") throw invalidField("name", "expected the name of a configuration object");
  return { kind: kindOf(kind), name: textOf("name", name, MAX_NAME_LENGTH) };
}

function kindOf(kind: string): ObjectName["kind"] {
  const known = OBJECT_KINDS.find((each) => each === kind);
  if (known !== undefined) return known;
  throw invalidField("kind", `expected one of ${OBJECT_KINDS.join(", ")}`);
}

function formatOf(format: ObjectFormat): "yaml" | "json" {
  if (format === ObjectFormat.UNSPECIFIED || format === ObjectFormat.YAML) return "yaml";
  if (format === ObjectFormat.JSON) return "json";
  throw invalidField("format", `expected OBJECT_FORMAT_YAML or _JSON, got ${enumName(ObjectFormatSchema, format)}`);
}
