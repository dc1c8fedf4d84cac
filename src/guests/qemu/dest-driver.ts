/**
 * Drives a QEMU that was started with `-incoming defer`, as the destination of a migration: switches
 * on what it needs, has it listen, and follows it until the guest is whole there. The data go from
 * the source to that QEMU; nothing of them passes here.
 */
import type { QmpClient } from "../../qmp/client.ts";
import { statusSchema } from "../../qmp/messages.ts";
import type { MigrateReply } from "../../qmp/messages.ts";
import { PostcopyError } from "../../util/errors.ts";
import { queryMigrate, switchCapabilities } from "./migration.ts";

/** How often QEMU is asked how far it is. */
const POLL_MS = 25;

/** QEMU does not receive, or lost what it received; its own words are in the message. */
export class ReceiveError extends PostcopyError {}

/** Switches on what a destination needs. @throws ReceiveError when this QEMU awaits no guest. */
export async function prepareIncoming(qmp: QmpClient, preempt: boolean): Promise<void> {
  const { status } = await qmp.execute("query-status", {}, statusSchema);
  if (status !== "inmigrate") {
    throw new ReceiveError("NOT_INCOMING", `This QEMU awaits no guest: it is in state ${status}`, {
      hint: "start it with: -incoming defer",
    });
  }
  await switchCapabilities(
    qmp,
    { "postcopy-ram": true, ...(preempt ? { "postcopy-preempt": true } : {}) },
    { events: true, "postcopy-blocktime": true, "postcopy-preempt": preempt },
  );
}

/** Has QEMU listen at `uri`. Returns where, with the port that it chose for 0. */
export async function listenIncoming(qmp: QmpClient, uri: string): Promise<string> {
  await qmp.run("migrate-incoming", { uri });
  const address = (await queryMigrate(qmp))["socket-address"]?.[0];
  if (address?.type !== "inet" || address.host === undefined) return uri;
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `tcp:${host}:${address.port}`;
}

/**
 * Follows the migration until every page is in place; `status` is told each status once.
 * @throws ReceiveError with QEMU's words.
 */
export async function followIncoming(
  qmp: QmpClient,
  status: (status: string) => void,
): Promise<MigrateReply> {
  let seen = "";
  for (;;) {
    const reply = await queryMigrate(qmp);
    const now = reply.status ?? "none";
    if (now !== seen) status(now);
    seen = now;
    if (now === "completed") return reply;
    if (now === "failed") {
      const why = reply["error-desc"] ?? "it does not say why";
      throw new ReceiveError("QEMU_FAILED", `QEMU could not take the guest: ${why}`);
    }
    if (now === "postcopy-paused") {
      throw new ReceiveError("PAUSED", "The link broke while pages were missing: QEMU is paused", {
        hint:
          "at its monitor: migrate_recover tcp:HOST:PORT, then at the source's: " +
          "migrate -r tcp:HOST:PORT",
      });
    }
    await Bun.sleep(POLL_MS);
  }
}
