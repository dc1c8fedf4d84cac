/** `--keep`: a guest that was sent goes on here, if that is certain to be the only place. */
import type { QmpClient } from "../../qmp/client.ts";
import { DriveError } from "./source-driver.ts";
import type { QemuSourceDriver } from "./source-driver.ts";

/**
 * Lets a guest that was sent go on here, as its peer has only kept it. A peer that runs a guest asks
 * for pages, one that keeps it never does: after a single request the guest must not run here.
 * @throws DriveError SPLIT_BRAIN.
 */
export async function continueGuest(qmp: QmpClient, driver: QemuSourceDriver): Promise<void> {
  const requests = driver.reply.ram?.["postcopy-requests"] ?? 0;
  if (driver.atSwitch === undefined || requests > 0) {
    const why =
      requests > 0
        ? `the peer asked for ${requests} pages, so it runs the guest`
        : "it completed before it switched to postcopy, which shows nothing";
    throw new DriveError("SPLIT_BRAIN", `The guest is not continued here: ${why}`, {
      hint: "if you are certain that it runs nowhere else: cont at the monitor",
    });
  }
  await qmp.run("cont");
}
