/** `--keep`: a guest that was sent goes on here, if that is certain to be the only place. */
import type { QmpClient } from "../../qmp/client.ts";
import type { MigrateReply } from "../../qmp/messages.ts";
import { statusSchema } from "../../qmp/messages.ts";
import { KEPT_REQUESTS } from "../../stream/hello.ts";
import { DriveError } from "./drive-error.ts";
import type { QemuSourceDriver } from "./source-driver.ts";

/** How often it is looked whether a guest that was told to go on does, and how long. */
const RESUME_LOOK_MS = 5;
const RESUME_TIMEOUT_MS = 30_000;
/** The run state of a guest that stands because it is being sent. */
const MIGRATING = "finish-migrate";

/**
 * Lets a guest that was sent go on here, as its peer has only kept it. It says so by a number of page
 * requests (KEPT_REQUESTS). A peer that runs the guest mostly asks for some pages, but may for none.
 * @throws DriveError SPLIT_BRAIN.
 */
export async function continueGuest(qmp: QmpClient, driver: QemuSourceDriver): Promise<void> {
  const why = doubtOf(driver);
  if (why !== undefined) {
    throw new DriveError("SPLIT_BRAIN", `The guest is not continued here: ${why}`, {
      hint: "if you are certain that it runs nowhere else: cont at the monitor",
    });
  }
  await letRun(qmp);
}

/**
 * Lets a guest run, and waits until it does. Before that it waits for the end of a migration that
 * says already that it has completed, and during which QEMU refuses `cont` ("not finalized yet").
 * @throws DriveError NOT_RESUMED.
 */
export async function letRun(qmp: QmpClient): Promise<void> {
  const deadline = performance.now() + RESUME_TIMEOUT_MS;
  for (let told = false; ;) {
    const { running, status } = await qmp.execute("query-status", {}, statusSchema);
    if (running) return;
    if (!told && status !== MIGRATING) {
      await qmp.run("cont");
      told = true;
      continue;
    }
    if (performance.now() > deadline) {
      const seconds = RESUME_TIMEOUT_MS / 1000;
      const what = `The guest was told to go on, and is in state ${status} after ${seconds} s`;
      throw new DriveError("NOT_RESUMED", what, { hint: "at the monitor: cont" });
    }
    await Bun.sleep(RESUME_LOOK_MS);
  }
}

/** Page requests of a guest that runs: none of a peer that keeps it, whatever it counts. */
export function guestRequests({ ram }: MigrateReply): number {
  const requests = ram?.["postcopy-requests"] ?? 0;
  return requests === KEPT_REQUESTS ? 0 : requests;
}

/** Why the guest might run at the peer; undefined where it is only kept. */
function doubtOf({ atSwitch, reply }: QemuSourceDriver): string | undefined {
  if (atSwitch === undefined) {
    return "it completed before it switched to postcopy, which shows nothing";
  }
  const requests = reply.ram?.["postcopy-requests"] ?? 0;
  if (requests === KEPT_REQUESTS) return undefined;
  return requests > 0
    ? `the peer asked for ${requests} pages, so it runs the guest`
    : "the peer does not say that it only keeps the guest, as postcopy dest does";
}
