/** How fast a body has to come while others wait for what it takes. */
import test from "ava";
import { inPace, LEAST_RATE } from "../src/app/uploads/body-pace.ts";
import { DomainError } from "../src/domain/errors.ts";

/** A body with so many bytes each second, collected while the test says since when somebody waits. */
function collecting(perSecond: number) {
  const pool = {
    time: 0,
    since: undefined as number | undefined,
  };
  const source = (async function* () {
    for (;;) {
      pool.time += 1000;
      yield new Uint8Array(perSecond);
    }
  })();
  const pressedMs = () => (pool.since === undefined ? undefined : pool.time - pool.since);
  const chunks = inPace({ pressedMs, now: () => pool.time }, 0, source);
  return {
    pool,
    /** @param away milliseconds that the server takes to pass each chunk on. */
    async seconds(count: number, away = 0) {
      for (let i = 0; i < count; i++) {
        await chunks.next();
        pool.time += away;
      }
    },
  };
}

test("a body that comes too slowly ends while somebody waits, one that is fast enough does not", async (t) => {
  const alone = collecting(1);
  await alone.seconds(3600);
  alone.pool.since = alone.pool.time;
  const slow = await t.throwsAsync(alone.seconds(60), { instanceOf: DomainError });
  t.is(slow.reason, "SEGMENT_IDLE");
  t.is(alone.pool.time, 3630 * 1000);

  const fast = collecting(LEAST_RATE);
  fast.pool.since = 0;
  await fast.seconds(3600);
  await fast.seconds(3600, 100_000);
});

test("what came before somebody could use the memory counts for the body, however long they have waited", async (t) => {
  const body = collecting(LEAST_RATE);
  await body.seconds(600);
  // Over their own share until now.
  body.pool.since = 1000;
  await body.seconds(600);
  t.pass();
});
