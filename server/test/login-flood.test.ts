/** Hundreds of logins at once against a real server process: bounded memory, and everybody else is served. */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { initConfiguration } from "@strongroom/testkit/installation";
import { startServerProcess } from "@strongroom/testkit/processes";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";
import { bearer, reasonOf } from "./support/live-server.ts";

const LOGINS = 400;
/** A connection on which nobody is logged in takes 32 calls at once. */
const CONNECTIONS = 16;
const MIB = 1024 * 1024;

/** Resident memory of a process now and at its most, in bytes (Linux). */
async function memoryOf(pid: number): Promise<{ now: number; most: number }> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const kib = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1]) * 1024;
  return { now: kib("VmRSS"), most: kib("VmHWM") };
}

/** The server itself; its program may be a script that started it. */
async function serverPid(child: number): Promise<number> {
  const children = (await readFile(`/proc/${child}/task/${child}/children`, "utf8")).trim();
  return children === "" ? child : await serverPid(Number(children.split(" ")[0]));
}

(process.platform === "linux" ? test : test.skip)(
  "a flood of logins neither takes the memory nor the other calls",
  async (t) => {
    t.timeout(120_000);
    const dir = await temporaryFolder(t);
    const password = await initConfiguration(join(dir, "config"));
    // Without a limit, so that the bound on hashing alone has to hold.
    const server = await startServerProcess(["--data", dir, "--rate-limit-login", "off"]);
    t.teardown(async () => await server.end("SIGTERM"));
    const connect = () =>
      createClient(SessionService, createConnectTransport({ baseUrl: server.url, httpVersion: "2" }));
    const sessions = connect();
    const strangers = Array.from({ length: CONNECTIONS }, connect);
    const { token } = await sessions.login({ username: "admin", password });
    const pid = await serverPid(server.child.pid!);
    const before = await memoryOf(pid);

    let flooding = true;
    const flood = Promise.all(
      Array.from({ length: LOGINS }, (_, i) =>
        reasonOf(
          strangers[i % CONNECTIONS]!.login({ username: i % 2 === 0 ? "admin" : `nobody-${i}`, password: "wrong" }),
        ),
      ),
    ).finally(() => {
      flooding = false;
    });
    let served = 0;
    let most = 0;
    while (flooding) {
      t.is((await sessions.whoAmI({}, bearer(token))).session!.user, "admin");
      served++;
      most = Math.max(most, (await memoryOf(pid)).now);
    }
    const outcomes = await flood;
    const count = (reason: string) => outcomes.filter((o) => o === reason).length;
    t.is(count("CREDENTIALS_INVALID") + count("LOGIN_BUSY"), LOGINS);
    t.true(count("CREDENTIALS_INVALID") >= 66, "those with a place are answered");
    t.true(count("LOGIN_BUSY") > 0);
    t.true(served > 0, "other calls are answered meanwhile");
    // Two hashes of 64 MiB at a time; 400 at once would be 25 GiB. The rest is room for the runtime.
    const after = await memoryOf(pid);
    t.true(after.most - before.most < 400 * MIB, `${(after.most - before.most) / MIB} MiB more`);
    t.is((await sessions.login({ username: "admin", password })).session!.user, "admin", "and logins go on");
    t.log(
      `${LOGINS} logins: ${count("CREDENTIALS_INVALID")} checked, ${count("LOGIN_BUSY")} sent away, ${served} ` +
        `other calls meanwhile; resident ${Math.round(before.now / MIB)} MiB before, ${Math.round(most / MIB)} ` +
        "MiB at the most",
    );
  },
);
