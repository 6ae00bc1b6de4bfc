import { PAGE } from "@strongroom/protocol/limits";
import { type CollectionDeps, getCollectionHealth } from "../../app/collections/collections.ts";
import type { VersionRow } from "../../app/ports/database.ts";
import { listVersions, type VersionDeps } from "../../app/versions/versions.ts";
import { bareSecret } from "../../calls/authentication.ts";
import { callerOf } from "../../calls/call.ts";
import type { HttpApiRoute } from "../../calls/routes.ts";
import type { HealthCheck } from "../../domain/health.ts";
import { type ApiAnswer, refusal, rfc3339, success } from "./answers.ts";
import type { ApiRoute } from "./api-call.ts";
import { collectionWording } from "./wording.ts";

/** The ports of collections and lists over the HTTP API. */
export type CollectionRoutesDeps = CollectionDeps & VersionDeps;

type CollectionRoute = Extract<HttpApiRoute, `${string}/version` | `${string}/health`>;

/** Names of the checks as existing monitoring knows them; the others are this project's own. */
const CHECK_NAMES: Readonly<Record<string, string>> = {
  window: "BackupWindowValidator",
  size: "VersionsSizeValidator",
  sum: "SumOfVersionsValidator",
};

/** Health of a collection, and its versions. */
export function collectionRoutes(
  deps: CollectionRoutesDeps,
): Record<Exclude<CollectionRoute, `POST ${string}`>, ApiRoute> {
  return {
    "GET /api/repository/collection/:id/health": {
      async answer({ call, params, query, req }) {
        const secret =
          call.principal === undefined
            ? bareSecret({ header: (name) => req.headers[name] as string | undefined, query: query.toString() })
            : undefined;
        const { checks } = await getCollectionHealth(deps, { principal: call.principal, secret }, params.id!);
        const health = checks.map(checkObject);
        if (health.every(({ status }) => status)) return success({ health });
        return refusal(500, "one of checks failed", { code: "failed_precondition", data: { health } });
      },
      wording:
        ({ call, params }) =>
        (error) =>
          collectionWording(
            error,
            call,
            params.id!,
            "not authorized - invalid value of 'code' parameter in query string",
          ),
    },

    "GET /api/repository/collection/:id/version": {
      async answer({ call, params }) {
        const page = async (beforeNumber: bigint | undefined) =>
          await listVersions(deps, callerOf(call), { collection: params.id!, beforeNumber, pageSize: PAGE.most });
        // Before anything is sent, so that a refusal still can be.
        const first = await page(undefined);
        const headers = { "content-type": "application/json; charset=utf-8" };
        return { status: 200, headers, body: listBody(first, page), code: "ok", message: "" } satisfies ApiAnswer;
      },
      wording:
        ({ call, params }) =>
        (error) =>
          collectionWording(error, call, params.id!, "not authorized to list versions"),
    },
  };
}

function checkObject({ name, status, message }: HealthCheck) {
  const called = CHECK_NAMES[name] ?? `${name[0]!.toUpperCase()}${name.slice(1)}Validator`;
  // The older server knew no warnings: what its three checks found fails here too.
  const isRight = status === "ok" || (status === "warning" && CHECK_NAMES[name] === undefined);
  return { name: called, status: isRight, statusText: `${called}=${isRight}`, message };
}

type Versions = Awaited<ReturnType<typeof listVersions>>;

/** Every version, page by page: a collection can have thousands. */
async function* listBody(
  first: Versions,
  page: (beforeNumber: bigint | undefined) => Promise<Versions>,
): AsyncGenerator<Uint8Array> {
  yield Buffer.from('{"status":true,"data":{"versions":[');
  for (let at = first, separator = ""; ; at = await page(at.nextBefore), separator = ",") {
    const text = at.versions.map((version) => JSON.stringify(versionObject(version))).join(",");
    if (text !== "") yield Buffer.from(`${separator}${text}`);
    if (at.nextBefore === undefined) break;
  }
  yield Buffer.from("]}}\n");
}

/** A version as existing clients know it. */
export function versionObject(version: VersionRow) {
  return {
    id: version.id,
    collectionId: version.collectionName,
    versionNumber: Number(version.number),
    filename: version.filename,
    filesize: Number(version.size),
    uploadedBySessionId: version.sessionId,
    user: version.userName,
    CreatedAt: rfc3339(version.committedAt),
    UpdatedAt: rfc3339(version.committedAt),
    DeletedAt: version.removedAt === null ? null : rfc3339(version.removedAt),
  };
}
