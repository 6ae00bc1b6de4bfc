import { formatSize, parseDuration, quoted, ValueError } from "@strongroom/protocol/sizes";
import { GFS_RULES, type GfsCounts, gfsCopies } from "../domain/gfs.ts";
import { extraSpace, type QuotaLimits, quotaLimits } from "../domain/quota.ts";
import { copiesOf, type RotationPolicy, type RotationRules } from "../domain/rotation.ts";
import { suggestion } from "./names.ts";
import type { ObjectNode, ValueNode } from "./node.ts";

/** More copies than this are a slip of the finger. */
const MAX_COPIES = 1_000_000;
/** Choosing which stay takes time with the square of their number. */
const MAX_OLDER_COPIES = 1_000;
const STRATEGIES = ["fifo", "fifo-plus-older", "gfs"] as const;

/** Rotation as a collection's configuration says; undefined where it is wrong, which was reported. */
export interface ReadRotation {
  readonly rotation: RotationPolicy | undefined;
  readonly maxBackupsCount: number | undefined;
}

/** Reads `maxBackupsCount`, `strategyName` and `strategySpec` of a collection. */
export function readRotation(spec: ObjectNode): ReadRotation {
  const node = spec.get("strategyName");
  const name = node ? node.text() : "fifo";
  const strategy = STRATEGIES.find((known) => known === name);
  if (name !== undefined && strategy === undefined)
    node?.error(`expected ${STRATEGIES.join(", ")}, got ${quoted(name)}${suggestion(name, STRATEGIES)}`);
  const details = spec.get("strategySpec")?.object();
  const rotation = strategy && READERS[strategy](details, node ?? spec);
  details?.warnUnknown();
  return { rotation, maxBackupsCount: readCount(spec, strategy) };
}

function readCount(spec: ObjectNode, strategy: RotationPolicy["strategy"] | undefined): number | undefined {
  if (strategy !== "gfs")
    return spec.require("maxBackupsCount", "the number of copies to keep")?.integer(1, MAX_COPIES);
  const node = spec.get("maxBackupsCount");
  node?.warn("it has no effect under gfs, where the sum of all keep* counts; remove it to silence this");
  return node ? node.integer(1, MAX_COPIES) : 1;
}

type Reader = (details: ObjectNode | undefined, strategy: ValueNode | ObjectNode) => RotationPolicy | undefined;

const READERS: Readonly<Record<RotationPolicy["strategy"], Reader>> = {
  fifo: (details) => {
    // Without effect, but existing files have them.
    details?.get("keepLastOlderNotMoreThan")?.parsed(parseDuration, "warn");
    details?.get("maxOlderCopies")?.integer(0, MAX_COPIES);
    return { strategy: "fifo" };
  },
  "fifo-plus-older": (details, strategy) => {
    // The former server never read the duration, so a wrong one is no reason to refuse a file of its.
    const maxAgeMs = details?.get("keepLastOlderNotMoreThan")?.parsed(positiveDuration, "warn");
    const maxOlderCopies = details?.get("maxOlderCopies")?.integer(0, MAX_OLDER_COPIES);
    if (maxAgeMs === undefined || maxOlderCopies === undefined || maxOlderCopies === 0) {
      strategy.warn(
        "expected maxOlderCopies above 0 and keepLastOlderNotMoreThan in strategySpec; without them it rotates as " +
          "fifo, and older copies are not kept",
      );
      return { strategy: "fifo" };
    }
    return { strategy: "fifo-plus-older", older: { maxOlderCopies, maxAgeMs } };
  },
  gfs: (details, strategy) => {
    const counts = Object.fromEntries(
      GFS_RULES.map((rule) => [rule, details?.get(rule)?.integer(0, MAX_COPIES) ?? 0]),
    ) as Record<(typeof GFS_RULES)[number], number> satisfies GfsCounts;
    if (gfsCopies(counts) > 0) return { strategy: "gfs", counts };
    (details ?? strategy).error(`expected at least one of ${GFS_RULES.join(", ")} above 0 in strategySpec, got none`);
    return undefined;
  },
};

function positiveDuration(text: string): number {
  const ms = parseDuration(text);
  if (ms === 0) throw new ValueError(`expected a duration above zero, got ${quoted(text)}`);
  return ms;
}

/**
 * The limits of a collection. Extra space is what is left of the hard limit when every copy has its soft limit; that it
 * is not negative is checked.
 */
export function readLimits(
  node: ValueNode | undefined,
  spec: Omit<QuotaLimits, "copies"> & Pick<RotationRules, "rotation" | "maxBackupsCount">,
): QuotaLimits {
  const limits = quotaLimits(spec);
  const extra = extraSpace(limits);
  const size = (bytes: bigint) => `${formatSize(bytes)} (${bytes} bytes)`;
  if (extra < 0n) {
    const copies = spec.rotation.strategy === "gfs" ? "sum of keep*" : "maxBackupsCount";
    const soft = formatSize(limits.maxOneVersionSize);
    const needed = limits.maxCollectionSize - extra;
    node?.error(
      `expected at least ${copies} * maxOneVersionSize = ${limits.copies} * ${soft} = ${size(needed)}, ` +
        `got ${size(limits.maxCollectionSize)}, ` +
        `so the extra space is ${formatSize(extra)}; raise maxCollectionSize or lower one of the others`,
    );
  } else if (limits.copies < copiesOf(spec)) {
    node?.warn(
      `it has room for ${limits.copies} versions at maxOneVersionSize, ${copiesOf(spec)} are asked for with ` +
        "the older " +
        "copies; of these, the oldest go when space is short",
    );
  }
  return limits;
}
