import fs from "node:fs";
import { join } from "node:path";
import type { DiskEvent, Inode, NameChange } from "@strongroom/testkit/disk-recorder";
import type { Random } from "@strongroom/testkit/random";

/** What a disk writes as a whole, in bytes: of one write it may hold some of these and not others. */
const PAGE = 4096;

/** How much of what was not synced a disk happened to write before the power went. */
export const LUCK = ["nothing", "everything", "some", "names only", "contents only"] as const;

/** See {@link LUCK}. */
export type Luck = (typeof LUCK)[number];

type FileEvent = Extract<DiskEvent, { kind: "write" | "truncate" }>;

interface Stored {
  readonly what: "file" | "directory";
  /** What a file surely holds. */
  content: Uint8Array;
  /** The names a directory surely has. */
  readonly names: Map<string, Inode>;
  /** What was done to a file since its last sync. */
  unsynced: FileEvent[];
}

/**
 * A disk by the strictest reading of POSIX: it surely holds what `fsync` was called for, contents by the file and names
 * by the directory, and of the rest any part, in any order, single pages of a write among it. Only one change of names
 * (a rename) is never half done.
 */
export class Disk {
  readonly #inodes = new Map<Inode, Stored>();
  /** Changes of names whose directories were not synced since, in order. */
  #unsyncedNames: (readonly NameChange[])[] = [];

  /** Lets the disk see the next event. */
  apply(event: DiskEvent): void {
    if (event.kind === "make") {
      this.#inodes.set(event.inode, {
        what: event.what,
        content: new Uint8Array(0),
        names: new Map(),
        unsynced: [],
      });
    } else if (event.kind === "names") this.#unsyncedNames.push(event.set);
    else if (event.kind === "sync") this.#sync(event.inode);
    else if (event.kind !== "mark") this.#inode(event.inode).unsynced.push(event);
  }

  /** Makes everything durable, as the system does by itself from time to time. */
  flush(): void {
    for (const inode of this.#inodes.keys()) this.#sync(inode);
  }

  /**
   * Writes what the disk may hold if the power goes now to a new directory. Says how many changes were not synced, and
   * how many of these were lost.
   */
  cut(random: Random, luck: Luck, target: string): { unsynced: number; lost: number } {
    let unsynced = 0;
    let lost = 0;
    const keep = (share: number) => {
      unsynced++;
      const kept = random.chance(share);
      if (!kept) lost++;
      return kept;
    };
    const shares = { nothing: [0, 0], everything: [1, 1], some: [random.next(), random.next()] } as const;
    const [nameShare, contentShare] = luck === "names only" ? [1, 0] : luck === "contents only" ? [0, 1] : shares[luck];

    const names = new Map([...this.#inodes].map(([inode, stored]) => [inode, new Map(stored.names)]));
    for (const set of this.#unsyncedNames) if (keep(nameShare)) setNames(names, set);
    const contentOf = (inode: Inode) => {
      const { content, unsynced: events } = this.#inode(inode);
      return survive(content, events, () => keep(contentShare));
    };
    const write = (inode: Inode, path: string) => {
      if (this.#inode(inode).what === "file") return fs.writeFileSync(path, contentOf(inode), { mode: 0o600 });
      fs.mkdirSync(path, { mode: 0o700 });
      for (const [name, entry] of names.get(inode)!) write(entry, join(path, name));
    };
    write(0, target);
    return { unsynced, lost };
  }

  #sync(inode: Inode): void {
    const stored = this.#inode(inode);
    if (stored.what === "file") {
      stored.content = survive(stored.content, stored.unsynced, () => true);
      stored.unsynced = [];
      return;
    }
    const known = new Map([...this.#inodes].map(([number, { names }]) => [number, names]));
    const concerns = (set: readonly NameChange[]) => set.some(({ directory }) => directory === inode);
    for (const set of this.#unsyncedNames) if (concerns(set)) setNames(known, set);
    this.#unsyncedNames = this.#unsyncedNames.filter((set) => !concerns(set));
  }

  #inode(inode: Inode): Stored {
    const stored = this.#inodes.get(inode);
    if (stored === undefined) throw new Error(`inode ${inode} was never made`);
    return stored;
  }
}

function setNames(names: ReadonlyMap<Inode, Map<string, Inode>>, set: readonly NameChange[]): void {
  for (const { directory, name, inode } of set) {
    if (inode === undefined) names.get(directory)!.delete(name);
    else names.get(directory)!.set(name, inode);
  }
}

/** A file's content after some of these events: `keep` is asked for each truncation and each page of a write. */
function survive(content: Uint8Array, events: readonly FileEvent[], keep: () => boolean): Uint8Array {
  if (events.length === 0) return content;
  let size = content.length;
  let most = size;
  for (const event of events)
    most = Math.max(most, event.kind === "write" ? event.offset + event.bytes.length : event.size);
  const bytes = new Uint8Array(most);
  bytes.set(content);
  for (const event of events) {
    if (event.kind === "truncate") {
      if (!keep()) continue;
      if (event.size < size) bytes.fill(0, event.size, size);
      size = event.size;
      continue;
    }
    const end = event.offset + event.bytes.length;
    for (let at = event.offset; at < end; ) {
      const next = Math.min(end, (Math.floor(at / PAGE) + 1) * PAGE);
      if (keep()) {
        bytes.set(event.bytes.subarray(at - event.offset, next - event.offset), at);
        size = Math.max(size, next);
      }
      at = next;
    }
  }
  return bytes.slice(0, size);
}
