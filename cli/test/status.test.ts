/** `strongroom status` and `strongroom health --all` over answers of a server. */
import { HealthStatus } from "@strongroom/client-sdk";
import { fitted } from "@strongroom/command-line/table";
import test, { type ExecutionContext } from "ava";
import { testContext } from "./support/context.ts";
import { at, collection, fakeSdk, LOGGED_IN } from "./support/fake-sdk.ts";

const now = () => Date.parse("2026-01-01T05:00:00Z");
const { OK, WARNING, FAILED } = HealthStatus;

const item = (name: string, status: HealthStatus, message = "") => ({
  collection: collection({ name, usage: { versionCount: 3, storedBytes: 1024n * 1024n } as never }),
  overview: {
    collection: name,
    status,
    problems: message === "" ? [] : [{ name: "age", status, message, advice: "Make one.", beganAt: at("02:00:00") }],
    newestVersion:
      status === FAILED
        ? undefined
        : { number: 7n, begunAt: at("02:00:00"), sizeBytes: 2048n, uploadedBy: "ann", accessKey: "job" },
  },
});

async function ask(t: ExecutionContext, items: ReturnType<typeof item>[], ...args: string[]) {
  const requests: { pageToken: string; health: HealthStatus[]; organization: string; namePrefix: string }[] = [];
  const { load } = fakeSdk({
    collections: {
      // Two pages.
      listCollections: async (request: (typeof requests)[number]) => {
        requests.push(request);
        const page = request.pageToken === "" ? items.slice(0, 2) : items.slice(2);
        return {
          collections: page.map((each) => each.collection),
          overviews: page.map((each) => each.overview),
          nextPageToken: request.pageToken === "" && items.length > 2 ? "2" : "",
        };
      },
    },
  });
  const { run, stdout, stderr } = await testContext(t, { sdk: load, env: LOGGED_IN, now });
  const code = await run(...args);
  return { code, out: stdout.text, err: stderr.text, requests };
}

const THREE = [item("a", OK), item("b", WARNING, "too large"), item("c", FAILED, "none came")];

test("status: the worst first, through all pages, with totals", async (t) => {
  const { code, out, requests } = await ask(t, THREE, "status");
  t.is(code, 0);
  const lines = out.trim().split("\n");
  t.regex(lines[1]!, /^c +failed +- +- +- +3 +1 MiB.* +age: none came$/);
  t.regex(lines[2]!, /^b +warning +3 h +2 KiB +ann\$job +3 +1 MiB/);
  t.regex(lines[3]!, /^a +ok /);
  t.is(lines.at(-1), "3 collections: 1 failed, 1 warning, 1 ok; 9 versions, 3 MiB");
  t.is(requests.length, 2);
});

test("status: filters are the server's, and --json has everything", async (t) => {
  const { out, requests } = await ask(
    t,
    THREE,
    "status",
    "--health",
    "not-ok",
    "--organization",
    "acme",
    "--prefix",
    "pg-",
    "--json",
  );
  t.like(requests[0], { health: [FAILED, WARNING], organization: "acme", namePrefix: "pg-" });
  const report = JSON.parse(out);
  t.like(report, { total: 3, counts: { failed: 1, warning: 1, ok: 1 } });
  t.like(report.collections[0], { collection: "c", status: "failed", newestVersion: undefined, versions: 3 });
  t.like(report.collections[0].problems[0], { name: "age", advice: "Make one.", since: "2026-01-01T02:00:00.000Z" });
  t.like(report.collections[1].newestVersion, { version: 7, uploadedBy: "ann", accessKey: "job", size: 2048 });
});

test("status: lines are not longer than the terminal", (t) => {
  const columns = [{ title: "A" }, { title: "PROBLEMS" }];
  const rows = [["name", "x".repeat(100)]];
  t.is(fitted(columns, rows, 20), `A     PROBLEMS\nname  ${"x".repeat(13)}…`);
  t.is(fitted(columns, rows, undefined).split("\n")[1]!.length, 106, "a pipe gets all of it");
});

test("health --all: the exit code of the worst", async (t) => {
  t.is((await ask(t, [item("a", OK)], "health", "--all")).code, 0);
  t.is((await ask(t, [item("a", OK), item("b", WARNING, "x")], "health", "--all")).code, 0);
  t.is((await ask(t, [item("a", OK), item("b", WARNING, "x")], "health", "--all", "--fail-on", "warning")).code, 8);
  const failed = await ask(t, THREE, "health", "--all");
  t.is(failed.code, 8);
  t.regex(failed.out, /^c +failed/m);
  t.notRegex(failed.out, /^a /m, "what is well is not in the way");
  t.is((await ask(t, [item("a", 99 as HealthStatus)], "health", "--all")).code, 8, "a status of the future");
  const quiet = await ask(t, THREE, "health", "--all", "--quiet");
  t.regex(quiet.out, /^c +failed/m, "cron has something to send");
  t.notRegex(quiet.out, /^[ab] /m);
  t.is((await ask(t, [item("a", OK), item("b", WARNING, "x")], "health", "--all", "--quiet")).out, "");
  t.is((await ask(t, [], "health", "--all")).code, 4, "who sees nothing is not told that all is well");
  t.is((await ask(t, THREE, "health", "--all", "a")).code, 2);
});
