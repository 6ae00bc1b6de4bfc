/**
 * The reason for a pool of our own (`adapters/postgres/pool.ts`, `connection.ts`): a transaction whose connection is
 * lost in the middle is over, and no later query of it runs anywhere. Work that goes on after the loss would else
 * change the database outside any transaction, or inside somebody else's.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { startProxy, type TcpProxy } from "@strongroom/testkit/proxy";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import type { Transaction } from "../src/app/ports/database.ts";
import { openServer, POSTGRES_PROGRAMS, removeSharedCluster, sharedCluster } from "./support/databases.ts";

const test = anyTest as TestFn;
test.after.always(async () => await removeSharedCluster());

type Loss = (through: TcpProxy, other: SqlDatabase) => Promise<unknown> | unknown;

const LOSSES: Readonly<Record<string, Loss>> = {
  "the server ends its session": async (_through, other) =>
    await other.query(
      sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and state = 'idle in transaction'`,
    ),
  "the network resets it": (through) => through.drop("reset"),
  "the network ends it in order": (through) => through.drop("orderly"),
};

for (const [how, lose] of Object.entries(LOSSES)) {
  test.serial(`${how} inside a transaction: no later query of it runs on another connection`, async (t) => {
    if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
    const url = await (await sharedCluster()).createDatabase();
    const proxy = await startProxy(url);
    const database = await openServer(
      url.replace(/@?127\.0\.0\.1:\d+/, (place) => place.replace(/127.*/, new URL(proxy.url).host)),
    );
    const other = await openServer(url);

    // Connections that a query could go astray to: idle ones, and one in a transaction of somebody else.
    await Promise.all([1, 2, 3].map(async () => await database.ping()));
    const outcomes: string[] = [];
    let goesOn: Promise<void> | undefined;
    const work = async (tx: Transaction) => {
      await tx.collections.lockByName("before");
      await lose(proxy, other);
      // Longer than a driver takes to connect again.
      for (let i = 0; i < 30; i++) {
        await sleep(10);
        const query = tx.collections.lockByName(`after-${i}`);
        outcomes.push(
          await query.then(
            () => "ran",
            (error: Error) => error.name,
          ),
        );
      }
    };
    let runs = 0;
    await database.transaction(async (tx) => {
      if (++runs > 1) return void (await tx.collections.lockByName("again"));
      goesOn = work(tx);
      await goesOn;
    });
    await goesOn;
    t.is(outcomes.length, 30);
    t.false(outcomes.includes("ran"), `${outcomes}`);
    t.is(runs, 2, "the work was done again, from its beginning");
    const rows = await other.query(sql`select name from collections order by name`);
    t.deepEqual(
      rows.map(({ name }) => name),
      ["again"],
    );
    await Promise.all([database.close(), other.close()]);
    await proxy.close();
  });
}
