/**
 * What of a server tells notifiers, as a program: `node notifying-server.ts DATABASE-URL RECEIVER-URL COLLECTIONS PACE`.
 * Its clock goes PACE times as fast as the real one, from the beginning of 2026 on.
 */
import { randomUUID } from "node:crypto";
import { Notifications } from "../../src/app/notifications/notifications.ts";
import { NOTIFICATION_EVENTS } from "../../src/domain/notifications.ts";
import { notificationSender } from "../../src/main.ts";
import { openServer } from "./databases.ts";
import { collection } from "./harness.ts";
import { quickClock } from "./quick-clock.ts";

const [databaseUrl = "", url = "", count = "1", pace = "1"] = process.argv.slice(2);
const names = Array.from({ length: Number(count) }, (_, index) => `c-${index + 1}`);
const notifier = {
  name: "ops",
  collections: undefined,
  organizations: undefined,
  events: NOTIFICATION_EVENTS,
  repeatMs: undefined,
  recovery: true,
  target: { type: "webhook", url, form: "json", secret: undefined, token: undefined },
} as const;
const configuration = {
  users: new Map(),
  collections: new Map(names.map((name) => [name, collection(name)])),
  organizations: new Map(),
  notifiers: new Map([["ops", notifier]]),
};
const notifications = new Notifications({
  database: await openServer(databaseUrl, quickClock(Number(pace))),
  config: { current: () => configuration },
  log: { debug() {}, info() {}, warn: console.error, error() {} },
  newId: randomUUID,
  random: Math.random,
  serverId: "one",
  signals: [],
  sender: notificationSender(["127.0.0.1"]),
});
notifications.start();
// The timer of its looks keeps no process alive.
setInterval(() => {}, 60_000);
process.stdout.write("started\n");
