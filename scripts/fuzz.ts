/**
 * `npm run fuzz [-- MINUTES]`: runs the property tests again and again with new seeds, for 10 minutes unless told
 * otherwise, and ends with exit code 1 at the first seed that fails. `STRONGROOM_TEST_SEED=SEED npm test` repeats it.
 */
import { spawnSync } from "node:child_process";
import { randomInt } from "node:crypto";
import { globSync, readFileSync } from "node:fs";

const minutes = Number(process.argv[2] ?? 10);
if (!(minutes > 0)) {
  console.error("usage: npm run fuzz [-- MINUTES]");
  process.exit(2);
}
const files = globSync("*/test/**/*.test.ts").filter((file) => /fast-check|mutations/.test(readFileSync(file, "utf8")));
const end = Date.now() + minutes * 60_000;
do {
  const seed = String(randomInt(2 ** 31));
  console.log(`seed ${seed}`);
  const environment = { ...process.env, STRONGROOM_TEST_SEED: seed };
  const { status } = spawnSync("ava", files, { stdio: ["ignore", "inherit", "inherit"], env: environment });
  if (status !== 0) {
    console.error(`Failed with seed ${seed}; STRONGROOM_TEST_SEED=${seed} repeats it.`);
    process.exit(1);
  }
} while (Date.now() < end);
