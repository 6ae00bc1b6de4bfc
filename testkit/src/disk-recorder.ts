import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { basename, dirname, join, relative, resolve } from "node:path";

/** A file or directory as the disk knows it; names are in directories. 0 is the recorded root. */
export type Inode = number;

/** What was done to files below the root, in order. */
export type DiskEvent =
  | { readonly kind: "make"; readonly inode: Inode; readonly what: "file" | "directory" }
  /** Names that changed in one step: set to an inode, or taken away. */
  | { readonly kind: "names"; readonly set: readonly NameChange[] }
  | { readonly kind: "write"; readonly inode: Inode; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly inode: Inode; readonly size: number }
  | { readonly kind: "sync"; readonly inode: Inode }
  /** Something that the caller noted, such as an acknowledgement. */
  | { readonly kind: "mark"; readonly text: string };

/** A name in a directory; `inode` is undefined where it is taken away. */
export interface NameChange {
  readonly directory: Inode;
  readonly name: string;
  readonly inode: Inode | undefined;
}

interface Live {
  readonly inode: Inode;
  readonly entries: Map<string, Live> | undefined;
}

/** The functions of `node:fs` that are watched. */
const WATCHED = [
  "openSync",
  "closeSync",
  "writeSync",
  "writeFileSync",
  "truncateSync",
  "ftruncateSync",
  "fsyncSync",
  "fdatasyncSync",
  "renameSync",
  "unlinkSync",
  "rmdirSync",
  "rmSync",
  "mkdirSync",
] as const;

/** Those that change files in ways that are not recorded; below the root they are refused. */
const REFUSED = ["appendFileSync", "copyFileSync", "cpSync", "linkSync", "symlinkSync", "writevSync"] as const;

type Functions = Record<string, (...args: never[]) => unknown>;

/**
 * Records what this process does to files below a directory by the synchronous functions of `node:fs`, which do their
 * work as before. PGlite uses no others. One at a time in a process.
 */
export class DiskRecorder {
  readonly events: DiskEvent[] = [];
  readonly #root: string;
  readonly #tree: Live;
  readonly #open = new Map<number, Live>();
  readonly #original = new Map<string, unknown>();
  #next: Inode = 0;

  /** Starts; what is below the root already is recorded as made and synced. */
  constructor(root: string) {
    this.#root = resolve(root);
    this.#tree = this.#load(this.#root);
    for (const name of [...WATCHED, ...REFUSED]) this.#original.set(name, (fs as unknown as Functions)[name]);
    this.#patch();
    syncBuiltinESMExports();
  }

  /** Notes something between two events. */
  mark(text: string): void {
    this.events.push({ kind: "mark", text });
  }

  /** Gives `node:fs` back. */
  stop(): void {
    for (const [name, original] of this.#original) (fs as unknown as Record<string, unknown>)[name] = original;
    syncBuiltinESMExports();
  }

  #load(path: string): Live {
    const inode = this.#next++;
    if (fs.statSync(path).isFile()) {
      this.events.push({ kind: "make", inode, what: "file" });
      this.events.push({ kind: "write", inode, offset: 0, bytes: fs.readFileSync(path) });
      this.events.push({ kind: "sync", inode });
      return { inode, entries: undefined };
    }
    this.events.push({ kind: "make", inode, what: "directory" });
    const entries = new Map(fs.readdirSync(path).map((name) => [name, this.#load(join(path, name))]));
    const set = [...entries].map(([name, entry]) => ({ directory: inode, name, inode: entry.inode }));
    this.events.push({ kind: "names", set }, { kind: "sync", inode });
    return { inode, entries };
  }

  #inside(path: unknown): path is string {
    return typeof path === "string" && !relative(this.#root, resolve(path)).startsWith("..");
  }

  #find(path: string): Live | undefined {
    let at: Live | undefined = this.#tree;
    for (const name of relative(this.#root, resolve(path)).split("/")) if (name !== "") at = at?.entries?.get(name);
    return at;
  }

  /** The directory that holds a path, and its last name. */
  #place(path: string): [entries: Map<string, Live>, directory: Inode, name: string] {
    const parent = this.#find(dirname(resolve(path)));
    if (parent?.entries === undefined) throw new Error(`the recorder does not know the directory of ${path}`);
    return [parent.entries, parent.inode, basename(path)];
  }

  #make(path: string, what: "file" | "directory"): Live {
    const [entries, directory, name] = this.#place(path);
    const made: Live = { inode: this.#next++, entries: what === "file" ? undefined : new Map() };
    entries.set(name, made);
    this.events.push({ kind: "make", inode: made.inode, what });
    this.events.push({ kind: "names", set: [{ directory, name, inode: made.inode }] });
    return made;
  }

  #remove(path: string): void {
    const [entries, directory, name] = this.#place(path);
    if (entries.delete(name)) this.events.push({ kind: "names", set: [{ directory, name, inode: undefined }] });
  }

  #truncate({ inode }: Live, size: number): void {
    this.events.push({ kind: "truncate", inode, size });
  }

  /** Opens or creates; returns what is there now. */
  #touch(path: string, creates: boolean, truncates: boolean): Live | undefined {
    const there = this.#find(path);
    if (there === undefined) return creates ? this.#make(path, "file") : undefined;
    if (truncates) this.#truncate(there, 0);
    return there;
  }

  #patch(): void {
    const real = Object.fromEntries(this.#original) as typeof fs;
    const mutable = fs as unknown as Record<string, unknown>;
    const ofDescriptor = (descriptor: number) => this.#open.get(descriptor);
    mutable.openSync = (path: fs.PathLike, flags: fs.OpenMode = "r", mode?: fs.Mode) => {
      const descriptor = real.openSync(path, flags, mode);
      if (this.#inside(path)) {
        const live = this.#touch(path, wants(flags, "O_CREAT", /[wa]/), wants(flags, "O_TRUNC", /w/));
        if (live !== undefined) this.#open.set(descriptor, live);
      }
      return descriptor;
    };
    mutable.closeSync = (descriptor: number) => {
      real.closeSync(descriptor);
      this.#open.delete(descriptor);
    };
    mutable.writeSync = (descriptor: number, bytes: Uint8Array, from: number, length: number, offset: number) => {
      const written = real.writeSync(descriptor, bytes, from, length, offset);
      const live = ofDescriptor(descriptor);
      if (live === undefined) return written;
      if (typeof offset !== "number") throw new Error("the recorder needs the position of a write");
      const kept = new Uint8Array(bytes.slice(from, from + written));
      this.events.push({ kind: "write", inode: live.inode, offset, bytes: kept });
      return written;
    };
    // Node.js writes some contents past the functions above, so it is done by them here.
    mutable.writeFileSync = (
      file: fs.PathOrFileDescriptor,
      data: string | Uint8Array,
      options?: fs.WriteFileOptions,
    ) => {
      if (!this.#inside(file)) return real.writeFileSync(file, data, options);
      const mode = typeof options === "object" ? options?.mode : undefined;
      const descriptor = fs.openSync(file, "w", mode ?? 0o666);
      try {
        const bytes = new Uint8Array(Buffer.from(data as string));
        for (let at = 0; at < bytes.length; ) at += fs.writeSync(descriptor, bytes, at, bytes.length - at, at);
      } finally {
        fs.closeSync(descriptor);
      }
    };
    mutable.truncateSync = (path: fs.PathLike, size = 0) => {
      real.truncateSync(path, size);
      if (this.#inside(path)) this.#truncate(this.#find(path)!, size);
    };
    mutable.ftruncateSync = (descriptor: number, size = 0) => {
      real.ftruncateSync(descriptor, size);
      const live = ofDescriptor(descriptor);
      if (live !== undefined) this.#truncate(live, size);
    };
    for (const name of ["fsyncSync", "fdatasyncSync"] as const) {
      mutable[name] = (descriptor: number) => {
        real[name](descriptor);
        const live = ofDescriptor(descriptor);
        if (live !== undefined) this.events.push({ kind: "sync", inode: live.inode });
      };
    }
    mutable.renameSync = (from: string, to: string) => {
      real.renameSync(from, to);
      if (!this.#inside(from) && !this.#inside(to)) return;
      const [source, directory, name] = this.#place(from);
      const [target, toDirectory, toName] = this.#place(to);
      const moved = source.get(name)!;
      source.delete(name);
      target.set(toName, moved);
      const set = [
        { directory, name, inode: undefined },
        { directory: toDirectory, name: toName, inode: moved.inode },
      ];
      this.events.push({ kind: "names", set });
    };
    for (const name of ["unlinkSync", "rmdirSync", "rmSync"] as const) {
      mutable[name] = (path: string, options?: fs.RmOptions) => {
        (real[name] as (path: string, options?: fs.RmOptions) => void)(path, options);
        if (this.#inside(path)) this.#remove(path);
      };
    }
    mutable.mkdirSync = (path: string, options?: fs.Mode | fs.MakeDirectoryOptions) => {
      const first = real.mkdirSync(path, options as fs.MakeDirectoryOptions);
      if (!this.#inside(path)) return first;
      let at = this.#root;
      for (const name of relative(this.#root, resolve(path)).split("/")) {
        at = join(at, name);
        if (this.#find(at) === undefined) this.#make(at, "directory");
      }
      return first;
    };
    for (const name of REFUSED) {
      mutable[name] = (...args: unknown[]) => {
        if (args.some((argument) => this.#inside(argument))) throw new Error(`the recorder does not know ${name}`);
        return (real[name] as (...args: unknown[]) => unknown)(...args);
      };
    }
  }
}

function wants(flags: fs.OpenMode, flag: "O_CREAT" | "O_TRUNC", letters: RegExp): boolean {
  return typeof flags === "number" ? (flags & fs.constants[flag]) !== 0 : letters.test(String(flags));
}
