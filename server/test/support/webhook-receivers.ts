import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { endWithUs } from "@strongroom/testkit/processes";
import type { ReceivedRequest } from "@strongroom/testkit/webhook-receiver";

const PROGRAM = fileURLToPath(import.meta.resolve("@strongroom/testkit/webhook-receiver"));

/** A receiver of webhooks in a process of its own. */
export class WebhookReceiver {
  readonly received: ReceivedRequest[] = [];
  readonly url: string;
  readonly port: number;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.port = port;
    this.url = `http://127.0.0.1:${port}/hook`;
  }

  static async start(mode: string, port = 0): Promise<WebhookReceiver> {
    const child = spawn(process.execPath, [PROGRAM, mode, String(port)], { stdio: ["pipe", "pipe", "inherit"] });
    endWithUs(child, "SIGKILL");
    const lines = createInterface({ input: child.stdout! });
    return await new Promise((resolve, reject) => {
      let receiver: WebhookReceiver | undefined;
      child.once("exit", () => reject(new Error("the receiver ended")));
      lines.on("line", (line) => {
        const said = JSON.parse(line) as ReceivedRequest & { readonly port: number };
        receiver?.received.push(said);
        receiver ??= new WebhookReceiver(child, said.port);
        resolve(receiver);
      });
    });
  }

  /** What was received, once there are so many. */
  async first(count: number): Promise<readonly ReceivedRequest[]> {
    await until(() => this.received.length >= count);
    return this.received;
  }

  /** What it does from now on. */
  mode(mode: string): void {
    this.#child.stdin!.write(`${mode}\n`);
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGKILL");
    await ended;
  }
}

/** Waits until something is so. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await sleep(20);
}
