import { createHash } from "node:crypto";
import fs from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { PGlite } from "@electric-sql/pglite";
import { NodeFS } from "@electric-sql/pglite/nodefs";
import { syncDirectory, syncTree } from "./sync-tree.ts";

/** Where PGlite mounts the data directory in its own tree of files. */
const MOUNT_POINT = "/pglite/data";

/** Only what a finished database has; PostgreSQL reads it first. */
const VERSION_FILE = "PG_VERSION";

/**
 * PostgreSQL's control file, the place of the state in it, and the state of a database that was closed in order
 * (`DB_SHUTDOWNED`, pg_control.h).
 */
const CONTROL_FILE = join("global", "pg_control");
const STATE_OFFSET = 16;
const CLOSED = 1;

/** What is used of PGlite's WebAssembly module, which Emscripten made. */
interface EmscriptenModule {
  readonly FS: {
    mkdirTree(path: string): void;
    mount(type: HostFiles, options: { root: string }, mountPoint: string): void;
    getStreamChecked(descriptor: number): Stream;
    readonly streams: readonly (Partial<Stream> | null | undefined)[];
  };
  readonly NODEFS: HostFiles;
}

/** An open file of the module; `nfd` is the descriptor of this process, where it has one. */
interface Stream {
  readonly nfd: number;
}

/** Emscripten's layer over files of the host. The module has an instance of its own. */
interface HostFiles {
  realPath(node: unknown): string;
  /** Turns errors of Node.js into those of the module, so that PostgreSQL sees the error number. */
  tryFSOperation<T>(operation: () => T): T;
  readonly node_ops: {
    mknod(parent: unknown, ...rest: unknown[]): unknown;
    rename(node: { readonly parent: unknown }, directory: unknown, name: string): void;
    unlink(parent: unknown, name: string): void;
    rmdir(parent: unknown, name: string): void;
    symlink(parent: unknown, ...rest: unknown[]): void;
  };
  readonly stream_ops: { fsync?: (stream: Stream) => number };
}

type EmscriptenOptions = Parameters<NodeFS["init"]>[1];

/** A data directory that holds files, but no database. */
export class NoDatabaseError extends Error {
  override name = "NoDatabaseError";
}

/**
 * The data directory of PGlite, on disks that may lose what was not synced. Three things are added to PGlite's own
 * layer (`NodeFS`, 0.5.16), where `fsync` and `fdatasync` report success and do nothing:
 *
 * - both reach the file, and the names of files that were created, renamed or removed before it; PostgreSQL itself asks
 *   that of few directories, and counts on file systems to do so;
 * - a new database is made beside its place, synced as a whole, and renamed to it: there is a whole one or none;
 * - one that was closed in order, but by a program without these syncs, is synced as a whole before it is used.
 *   PostgreSQL does that itself with one that was not closed in order.
 */
export class DataDirectory extends NodeFS {
  readonly #path: string;
  readonly #mount: { root: string };
  /** Directories in which a name changed since they were synced. */
  readonly #unsynced = new Set<string>();
  #module: EmscriptenModule | undefined;

  /**
   * @throws NoDatabaseError when there are files at `path`, but no database
   */
  constructor(path: string) {
    const place = fs.existsSync(path) ? fs.realpathSync(path) : resolve(path);
    const fresh = isVacant(place);
    const root = fresh ? `${place}.new` : place;
    if (fresh) fs.rmSync(root, { recursive: true, force: true });
    super(root);
    fs.chmodSync(root, 0o700);
    this.#path = place;
    this.#mount = { root };
    if (!fresh) syncWhenClosedByOthers(place);
  }

  override async init(pg: PGlite, options: EmscriptenOptions): Promise<{ emscriptenOpts: EmscriptenOptions }> {
    this.pg = pg;
    const instantiate = options.instantiateWasm;
    return {
      emscriptenOpts: {
        ...options,
        instantiateWasm: (imports: { env: Record<string, unknown> }, done: unknown) => {
          imports.env.__syscall_fdatasync = (descriptor: number) => this.#fdatasync(descriptor);
          return instantiate!(imports, done);
        },
        preRun: [...(options.preRun ?? []), (module) => this.#attach(module as unknown as EmscriptenModule)],
      },
    };
  }

  /** PGlite calls this when it has filled a new data directory, and after every query. */
  override async syncToFs(): Promise<void> {
    if (this.#mount.root === this.#path) return;
    syncTree(this.#mount.root);
    fs.renameSync(this.#mount.root, this.#path);
    syncDirectory(dirname(this.#path));
    this.#mount.root = this.#path;
    this.#unsynced.clear();
  }

  override async closeFs(): Promise<void> {
    await super.closeFs();
    const control = closedControl(this.#path);
    if (control !== undefined) fs.writeFileSync(noteOf(this.#path), control, { mode: 0o600 });
  }

  /** Closes the files of a database that ended by itself and cannot close them. */
  abandon(): void {
    const streams = this.#module?.FS.streams ?? [];
    this.#module = undefined;
    for (const stream of streams) {
      if (typeof stream?.nfd !== "number") continue;
      try {
        fs.closeSync(stream.nfd);
      } catch {
        // It had closed that one.
      }
    }
  }

  #attach(module: EmscriptenModule): void {
    this.#module = module;
    const { node_ops: names, stream_ops: files, realPath } = module.NODEFS;
    const { mknod, rename, unlink, rmdir, symlink } = names;
    const changing = (directory: unknown) => void this.#unsynced.add(realPath(directory));
    names.mknod = (parent, ...rest) => {
      changing(parent);
      return mknod(parent, ...rest);
    };
    names.rename = (node, directory, name) => {
      changing(node.parent);
      changing(directory);
      rename(node, directory, name);
    };
    names.unlink = (parent, name) => {
      changing(parent);
      unlink(parent, name);
    };
    names.rmdir = (parent, name) => {
      changing(parent);
      rmdir(parent, name);
    };
    names.symlink = (parent, ...rest) => {
      changing(parent);
      symlink(parent, ...rest);
    };
    files.fsync = (stream) => module.NODEFS.tryFSOperation(() => this.#sync(stream.nfd));
    module.FS.mkdirTree(MOUNT_POINT);
    module.FS.mount(module.NODEFS, this.#mount, MOUNT_POINT);
  }

  /** Syncs a file, then what changed among the names. Anything that throws here makes PostgreSQL end, as it must. */
  #sync(descriptor: number): number {
    // A database that is being made is synced as a whole in the end.
    if (this.#mount.root !== this.#path) return 0;
    fs.fsyncSync(descriptor);
    for (const directory of this.#unsynced) {
      syncDirectory(directory);
      this.#unsynced.delete(directory);
    }
    return 0;
  }

  /** The system call, which answers with a negative error number. */
  #fdatasync(descriptor: number): number {
    const { FS, NODEFS } = this.#module!;
    try {
      return NODEFS.tryFSOperation(() => this.#sync(FS.getStreamChecked(descriptor).nfd));
    } catch (error) {
      const { errno } = error as { errno?: unknown };
      if (typeof errno !== "number") throw error;
      return -errno;
    }
  }
}

/** Whether a database can be made at this place. */
function isVacant(path: string): boolean {
  if (fs.existsSync(resolve(path, VERSION_FILE))) return false;
  if (!fs.existsSync(path) || fs.readdirSync(path).length === 0) return true;
  throw new NoDatabaseError(
    `${path} holds files, but no database: it lacks ${VERSION_FILE}. Either a power cut took it, or the server ` +
      "was ended while it made its first database. Put back the copy of the data directory; where it never held " +
      "a backup, remove this folder, and a new database is made",
  );
}

/** Where it is noted that the data directory was closed with everything synced. */
function noteOf(path: string): string {
  return `${path}.synced`;
}

/**
 * The content of the note of this closing; undefined for a database that was not closed in order. A copy of the
 * directory, which nobody may have synced, has another inode or time of change.
 */
function closedControl(path: string): string | undefined {
  const file = join(path, CONTROL_FILE);
  const control = fs.readFileSync(file);
  if (control.readInt32LE(STATE_OFFSET) !== CLOSED) return undefined;
  const { ino, ctimeNs } = fs.statSync(file, { bigint: true });
  return `${createHash("sha256").update(control).digest("hex")} ${ino} ${ctimeNs}\n`;
}

/**
 * On many file systems each sync costs a turn of the disk, also of a file that did not change; there are a thousand.
 */
function syncWhenClosedByOthers(path: string): void {
  const control = closedControl(path);
  if (control === undefined) return;
  const note = noteOf(path);
  if (!fs.existsSync(note) || fs.readFileSync(note, "utf8") !== control) syncTree(path);
}
