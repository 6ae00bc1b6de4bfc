import { setTimeout as sleep } from "node:timers/promises";
import { recordVerification, type VerifyDeps, verifyVersion } from "../versions/verify-version.ts";

/** How fast and how often stored versions are verified. */
export interface VerificationPlan {
  /** Every version is verified at least once in this time, in milliseconds. */
  readonly everyMs: number;
  /** The most bytes read in a second. */
  readonly bytesPerSecond: bigint;
}

/** A damaged version is looked at again this often, in milliseconds, so that health learns of a repair. */
const DAMAGED_MS = 24 * 3_600_000;

/** A claim nobody renewed for this long is over, in milliseconds. */
const CLAIM_MS = 15 * 60_000;

/** How long it waits when nothing is due, or the store or the database failed, in milliseconds. */
const IDLE_MS = 60_000;

/** It reads at least this fast, in bytes a second, so that small installations are done quickly. */
const LEAST_RATE = 1024n * 1024n;

/**
 * The speed, in bytes a second, at which `liveBytes` are all verified within the period, and whether the plan allows
 * it. A version is due after half the period; at this speed even all of them at once take no longer than the other
 * half.
 */
export function verificationRate(plan: VerificationPlan, liveBytes: bigint): { rate: bigint; isEnough: boolean } {
  const needed = (2n * liveBytes * 1000n + BigInt(plan.everyMs) - 1n) / BigInt(plan.everyMs);
  const wanted = needed > LEAST_RATE ? needed : LEAST_RATE;
  const rate = wanted < plan.bytesPerSecond ? wanted : plan.bytesPerSecond;
  return { rate, isEnough: plan.bytesPerSecond >= needed };
}

/**
 * Verifies the version that is due and was verified longest ago.
 * @returns whether there was one.
 * @throws BlobStoreError, or DomainError of the database: tried again later, nothing is said of the version.
 */
export async function verifyNext(
  deps: VerifyDeps,
  plan: VerificationPlan,
  signal: AbortSignal,
  pause: (ms: number) => Promise<void>,
): Promise<boolean> {
  const { version, liveBytes, now } = await deps.database.transaction(async (tx) => {
    const ago = (ms: number) => new Date(tx.now.getTime() - ms);
    const limits = {
      before: ago(plan.everyMs / 2),
      damagedBefore: ago(Math.min(DAMAGED_MS, plan.everyMs / 2)),
      until: ago(-CLAIM_MS),
    };
    const version = await tx.versions.claimForVerification(tx.now, limits);
    return { version, liveBytes: version === undefined ? 0n : await tx.versions.liveBytes(), now: tx.now };
  });
  if (version === undefined) return false;
  const { rate, isEnough } = verificationRate(plan, liveBytes);
  const lastVerified = version.verifiedAt ?? version.committedAt;
  if (!isEnough && now.getTime() - lastVerified.getTime() > plan.everyMs) {
    deps.log.warn(
      { live_bytes: String(liveBytes), bytes_per_second: String(plan.bytesPerSecond) },
      "verification: --verify-rate is too low to verify everything within --verify-every; raise one of them",
    );
  }
  let renewed = performance.now();
  const onBytes = async (bytes: number) => {
    await pause((bytes * 1000) / Number(rate));
    if (performance.now() - renewed < CLAIM_MS / 3) return;
    renewed = performance.now();
    await deps.database.transaction(
      async (tx) => await tx.versions.extendVerification(version.id, new Date(tx.now.getTime() + CLAIM_MS)),
    );
  };
  try {
    const result = await verifyVersion(deps, version, { signal, onBytes });
    await recordVerification(deps, version, result);
  } catch (error) {
    // After a failure of the store the claim stays until it ends by itself, so that the others get their turn first.
    if (signal.aborted) {
      await deps.database.transaction(async (tx) => await tx.versions.dropVerification(version.id)).catch(() => {});
    }
    throw error;
  }
  return true;
}

/** Verifies stored versions in the background. Several servers share the work: each claims one version at a time. */
export class Verifier {
  readonly #deps: VerifyDeps;
  readonly #plan: VerificationPlan;
  readonly #stopped = new AbortController();
  #running: Promise<void> | undefined;

  constructor(deps: VerifyDeps, plan: VerificationPlan) {
    this.#deps = deps;
    this.#plan = plan;
  }

  /** Begins; returns at once. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** Breaks off what is under way; the version is verified from its beginning later. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    let freeAt = 0;
    const pause = async (ms: number) => {
      const now = performance.now();
      // Time that reading took counts, up to a second of it.
      freeAt = Math.max(freeAt, now - 1000) + ms;
      if (freeAt - now >= 1) await sleep(freeAt - now, undefined, { signal, ref: false });
    };
    while (!signal.aborted) {
      try {
        if (await verifyNext(this.#deps, this.#plan, signal, pause)) continue;
      } catch (error) {
        if (signal.aborted) return;
        this.#deps.log.warn({ err: error }, "verification: could not go on; it tries again in a minute");
      }
      await sleep(IDLE_MS, undefined, { signal, ref: false }).catch(() => {});
    }
  }
}
