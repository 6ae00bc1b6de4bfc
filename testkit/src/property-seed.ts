/**
 * Loaded by AVA before each test file (`ava.require` in package.json): property tests run with one seed, so that a
 * commit passes or fails the same way everywhere. `npm run fuzz` runs them with new seeds, and prints each; what it
 * finds becomes a test of its own.
 */
import fc from "fast-check";

/** Seed of all property tests: the environment variable STRONGROOM_TEST_SEED, or 1. */
export const SEED = Number.parseInt(process.env.STRONGROOM_TEST_SEED ?? "1", 10);

fc.configureGlobal({ seed: SEED });
