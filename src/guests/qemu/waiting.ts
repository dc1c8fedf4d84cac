/**
 * A QEMU that an earlier `--run` started, and whose source was killed before all of the guest was
 * there: the guest runs in it, or waits for a page. It is found by its private monitor, and finished.
 */
import { rmSync } from "node:fs";
import { dirname, join } from "node:path";
import * as z from "zod";
import { QmpClient } from "../../qmp/client.ts";
import { capabilitiesSchema } from "../../qmp/messages.ts";
import { PostcopyError } from "../../util/errors.ts";
import { queryMigrate, switchCapabilities } from "./migration.ts";

/** How often it is looked how far it is, and how long it may take to notice that its source is gone. */
const POLL_MS = 20;
const PAUSE_TIMEOUT_MS = 10_000;

/** Capabilities that `--run` switched on: a QEMU that was started for it had none. */
const FOR_THE_RESTORE = [
  "events",
  "postcopy-ram",
  "postcopy-preempt",
  "postcopy-blocktime",
] as const;

export class WaitingQemu {
  /** Its monitor. */
  readonly qmp: QmpClient;
  readonly #monitor: string;

  private constructor(qmp: QmpClient, monitor: string) {
    this.qmp = qmp;
    this.#monitor = monitor;
  }

  /** @throws MonitorError when it is gone, or does not answer. */
  static async find(monitor: string): Promise<WaitingQemu> {
    // Its main loop may wait for a page; what is sent out of band is answered by another thread.
    return new WaitingQemu(await QmpClient.connect(monitor, { outOfBand: true }), monitor);
  }

  /**
   * Waits, up to `patienceMs`, until it has noticed that its source is gone. Returns whether pages
   * are missing at all.
   * @throws PostcopyError NOT_WAITING for one that never had the guest, or lost it.
   */
  async missesPages(patienceMs = PAUSE_TIMEOUT_MS): Promise<boolean> {
    const deadline = performance.now() + patienceMs;
    for (;;) {
      const status = (await queryMigrate(this.qmp)).status ?? "none";
      if (status === "postcopy-paused") return true;
      if (status === "completed") return false;
      // In the middle of a recovery as well: with its source, that ends in a pause.
      const hasGuest = status.startsWith("postcopy-");
      if (!hasGuest || performance.now() >= deadline) throw notWaiting(status, hasGuest);
      await Bun.sleep(POLL_MS);
    }
  }

  /** Has it listen again. Returns the path of its socket, and whether it takes a preempt channel. */
  async recover(): Promise<{ path: string; preempt: boolean }> {
    const path = join(dirname(this.#monitor), `incoming-${process.pid}`);
    const how = { outOfBand: this.qmp.outOfBand };
    await this.qmp.execute("migrate-recover", { uri: `unix:${path}` }, z.unknown(), how);
    const known = await this.qmp.execute("query-migrate-capabilities", {}, capabilitiesSchema);
    const preempt = known.some(({ capability, state }) => {
      return capability === "postcopy-preempt" && state;
    });
    return { path, preempt };
  }

  /** Leaves it running on its own, as `--run` would have. */
  async release(): Promise<void> {
    const off = Object.fromEntries(FOR_THE_RESTORE.map((name) => [name, false]));
    await switchCapabilities(this.qmp, {}, off);
    this.qmp.close();
    rmSync(dirname(this.#monitor), { recursive: true, force: true });
  }

  /** Closes its monitor; everything else stays. */
  close(): void {
    this.qmp.close();
  }
}

function notWaiting(status: string, hasGuest: boolean): PostcopyError {
  const what = `That QEMU waits for no pages: it is ${status}`;
  const hint = hasGuest
    ? "the guest is in it: leave it, and repeat this command when it has lost its source"
    : "end it; then send the guest again, without --resume";
  return new PostcopyError("NOT_WAITING", what, { hint });
}
