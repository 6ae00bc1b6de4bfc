/** How fast a body has to come while others wait for the memory that it is collected in. */
import test from "ava";
import { inPace, LEAST_RATE } from "../src/app/uploads/body-pace.ts";
import { DomainError } from "../src/domain/errors.ts";

/** A body with so many bytes each second, collected while the test says since when somebody waits. */
function collecting(perSecond: number) {
  const pool = {
    now: 0,
    since: undefined as number | undefined,
    pressedSince: () => pool.since,
  };
  const source = (async function* () {
    for (;;) yield new Uint8Array(perSecond);
  })();
  const chunks = inPace(pool, "a", new Uint8Array(0), source);
  return {
    pool,
    async seconds(count: number) {
      for (let i = 0; i < count; i++) {
        pool.now += 1000;
        await chunks.next();
      }
    },
  };
}

test("a body that comes too slowly ends while somebody waits, one that is fast enough does not", async (t) => {
  const alone = collecting(1);
  await alone.seconds(3600);
  alone.pool.since = alone.pool.now;
  const slow = await t.throwsAsync(alone.seconds(60), { instanceOf: DomainError });
  t.is(slow.reason, "SEGMENT_IDLE");
  t.is(alone.pool.now, 3630 * 1000);

  const fast = collecting(LEAST_RATE);
  fast.pool.since = 0;
  await fast.seconds(3600);
});

test("what came before somebody could use the memory counts for the body, however long they have waited", async (t) => {
  const body = collecting(LEAST_RATE);
  await body.seconds(600);
  // Over their own share until now.
  body.pool.since = 1000;
  await body.seconds(600);
  t.pass();
});
