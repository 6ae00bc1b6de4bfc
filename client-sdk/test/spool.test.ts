import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import { Spool } from "../src/upload/spool.ts";
import { noise } from "./support/bytes.ts";

const folder = mkdtempSync(join(tmpdir(), "strongroom-spool-"));
test.after.always(() => rmSync(folder, { recursive: true, force: true }));

test("slots are used again, and parts come back as they were written", async (t) => {
  const spool = await Spool.open(folder, 1000, 2);
  t.deepEqual(readdirSync(folder), [], "the file has no name");
  const [one, two, three] = [noise(1000), noise(700), noise(1000)];
  const first = await spool.write(one!);
  const second = await spool.write(two!);
  t.false(spool.hasRoom);
  t.true(Buffer.from(await spool.read(first, 100, 900)).equals(one!.subarray(100)));
  spool.free(first);
  t.true(spool.hasRoom);
  const third = await spool.write(three!);
  t.true(Buffer.from(await spool.read(second, 0, 700)).equals(two!));
  t.true(Buffer.from(await spool.read(third, 0, 1000)).equals(three!));
  await spool.close();
});

test("a file system that takes no more is reported with folder and options, and the slot stays free", (t) => {
  if (process.platform === "win32") {
    t.log("SKIPPED: needs the shell's ulimit");
    t.pass();
    return;
  }
  // The system's limit for the size of a file stands in for a full disk: the same write fails, with EFBIG.
  const script = `
    import { Spool } from ${JSON.stringify(new URL("../src/upload/spool.ts", import.meta.url).href)};
    const spool = await Spool.open(${JSON.stringify(folder)}, 300_000, 4);
    await spool.write(new Uint8Array(300_000));
    try {
      await spool.write(new Uint8Array(300_000));
    } catch (error) {
      console.log(JSON.stringify([error.name, error.message, spool.hasRoom]));
    }`;
  const command = 'ulimit -f 512; exec "$0" --input-type=module -e "$1"';
  const out = execFileSync("bash", ["-c", command, process.execPath, script], { stdio: ["ignore", "pipe", "inherit"] });
  const [name, message, hasRoom] = JSON.parse(out.toString()) as [string, string, boolean];
  t.is(name, "SpoolError");
  t.true(message.includes(`There is no room left in ${folder}`), message);
  t.regex(message, /--spool-dir.*--spool/);
  t.true(hasRoom);
});
