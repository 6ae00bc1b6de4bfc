import type { Collection, CollectionOverview, HealthStatus } from "@strongroom/client-sdk";
import { collectPages } from "./pages.ts";
import { CALL, type Connection } from "./session.ts";

/** Which collections; those that fit everything given. */
export interface OverviewFilter {
  readonly namePrefix?: string | undefined;
  readonly organization?: string | undefined;
  readonly health?: readonly HealthStatus[] | undefined;
}

/** A collection and how it is. */
export interface OverviewItem {
  readonly collection: Collection;
  readonly overview: CollectionOverview;
}

/**
 * The collections that the caller may see, by name.
 * @throws InvalidRequestError when the server is older than overviews, whose empty answer must not read as "none".
 */
export async function readOverview(connection: Connection, filter: OverviewFilter = {}): Promise<OverviewItem[]> {
  const { namePrefix = "", organization = "", health = [] } = filter;
  return await collectPages(async (pageToken) => {
    const request = { pageToken, pageSize: 1000, namePrefix, organization, health: [...health] };
    const page = await connection.client.collections.listCollections(request, CALL);
    if (page.collections.length > 0 && page.overviews.length === 0) {
      const lacks = "gives no overview of collections";
      throw new connection.sdk.InvalidRequestError(connection.sdk.olderServer(connection.url, lacks), {
        code: "unimplemented",
      });
    }
    const items = page.collections.flatMap((collection, index) => {
      const overview = page.overviews[index];
      return overview === undefined ? [] : [{ collection, overview }];
    });
    return { items, nextPageToken: page.nextPageToken };
  });
}
