/** A clock that a test sets, for programs that run beside it (libfaketime). */
import { accessSync } from "node:fs";
import { chmod, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExecutionContext } from "ava";

/** Where Debian's package `libfaketime` puts the library, by machine. */
const LIBRARIES = ["x86_64", "aarch64"].map((machine) => `/usr/lib/${machine}-linux-gnu/faketime/libfaketimeMT.so.1`);

function findLibrary(): string | undefined {
  return LIBRARIES.find((path) => {
    try {
      accessSync(path);
      return true;
    } catch {
      return false;
    }
  });
}

/**
 * Whether libfaketime is installed. Where it is not, the test says so loudly and passes, but fails under CI=true, so
 * that nobody believes that it was tried.
 */
export function hasFaketime(t: ExecutionContext): boolean {
  if (findLibrary() !== undefined) return true;
  const message = `SKIPPED: ${t.title}: libfaketime not installed; run peers/install.sh`;
  if (process.env.CI === "true") {
    t.fail(message);
    return false;
  }
  console.error(`!!! ${message}`);
  t.log(message);
  t.pass();
  return false;
}

/** A clock that is as far ahead as a test says. */
export interface FakeClock {
  /** Variables of the environment that give a program this clock. */
  readonly env: Readonly<Record<string, string>>;
  /** Puts it so many seconds ahead of the real one, at once, for programs that run too. */
  setAhead(seconds: number): Promise<void>;
  remove(): Promise<void>;
}

/** Makes a clock that is right at first. Monotonic clocks stay as they are. */
export async function fakeClock(): Promise<FakeClock> {
  const folder = await mkdtemp(join(tmpdir(), "strongroom-clock-"));
  // The program may run as another user.
  await chmod(folder, 0o755);
  const file = join(folder, "ahead");
  const setAhead = async (seconds: number) => {
    await writeFile(`${file}.new`, `${seconds < 0 ? "-" : "+"}${Math.abs(seconds)}s\n`, { mode: 0o644 });
    await rename(`${file}.new`, file);
  };
  await setAhead(0);
  return {
    env: {
      LD_PRELOAD: findLibrary()!,
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_NO_CACHE: "1",
      DONT_FAKE_MONOTONIC: "1",
    },
    setAhead,
    remove: async () => await rm(folder, { recursive: true, force: true }),
  };
}
