/**
 * Drives a QEMU that was started with `-incoming defer`, as the destination of a migration: switches
 * on what it needs, has it listen, and follows it until the guest is whole there. The data go from
 * the source to that QEMU; nothing of them passes here.
 */
import * as z from "zod";
import { QmpError } from "../../qmp/client.ts";
import type { QmpClient } from "../../qmp/client.ts";
import { statusSchema } from "../../qmp/messages.ts";
import type { MigrateReply } from "../../qmp/messages.ts";
import { PostcopyError } from "../../util/errors.ts";
import { Retries } from "../../util/retries.ts";
import { queryMigrate, refuseDeadlyMultifd } from "./migration.ts";
import { ChangedSettings } from "./settings.ts";
import type { QemuTls } from "./tls.ts";

/** How often QEMU is asked how far it is. */
const POLL_MS = 25;
/** How long a paused QEMU is told to listen again, where it cannot at first. */
const LISTEN_AGAIN_TIMEOUT_MS = 30_000;

/** QEMU does not receive, or lost what it received; its own words are in the message. */
export class ReceiveError extends PostcopyError {}

/**
 * Switches on what a destination needs; gives what is to be put back afterwards.
 * @throws ReceiveError when this QEMU awaits no guest.
 */
export async function prepareIncoming(
  qmp: QmpClient,
  { preempt, tls }: { preempt: boolean; tls: QemuTls | undefined },
): Promise<ChangedSettings> {
  const { status } = await qmp.execute("query-status", {}, statusSchema);
  if (status !== "inmigrate") {
    throw new ReceiveError("NOT_INCOMING", `This QEMU awaits no guest: it is in state ${status}`, {
      hint: "start it with: -incoming defer",
    });
  }
  await refuseDeadlyMultifd(qmp);
  return await ChangedSettings.change(qmp, {
    needed: { "postcopy-ram": true, ...(preempt ? { "postcopy-preempt": true } : {}) },
    wished: { events: true, "postcopy-blocktime": true, "postcopy-preempt": preempt },
    parameters: {},
    tls,
  });
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
 * Follows the migration until every page is in place; `status` is told each status once. Whenever
 * the link breaks while pages are missing, QEMU is told to listen at `uri` again.
 * @throws ReceiveError with QEMU's words.
 */
export async function followIncoming(
  qmp: QmpClient,
  uri: string,
  status: (status: string) => void,
): Promise<MigrateReply> {
  let seen = "";
  // A failed try to recover may lie between two looks: its events are counted.
  let paused = 0;
  qmp.onEvent(({ name, data }) => {
    if (name === "MIGRATION" && data["status"] === "postcopy-paused") paused++;
  });
  for (let recovered = 0; ;) {
    const reply = await queryMigrate(qmp);
    const now = reply.status ?? "none";
    if (now !== seen) status(now);
    seen = now;
    if (now === "completed") return reply;
    if (now === "failed") {
      const why = reply["error-desc"] ?? "it does not say why";
      throw new ReceiveError("QEMU_FAILED", `QEMU could not take the guest: ${why}`);
    }
    if (now === "postcopy-paused" && paused > recovered) {
      recovered = paused;
      await recoverIncoming(qmp, uri);
    }
    await Bun.sleep(POLL_MS);
  }
}

/**
 * Has a paused QEMU listen again, beside its other commands, as its main loop may wait for a page.
 * The address may still be in use by what is left of the old connection.
 * @throws ReceiveError with what an operator can do instead.
 */
async function recoverIncoming(qmp: QmpClient, uri: string): Promise<void> {
  const retries = new Retries(LISTEN_AGAIN_TIMEOUT_MS);
  for (;;) {
    try {
      await qmp.execute("migrate-recover", { uri }, z.unknown(), { outOfBand: qmp.outOfBand });
      return;
    } catch (cause) {
      if (cause instanceof QmpError && (await retries.next())) continue;
      const what = "The link broke while pages were missing, and QEMU does not listen again";
      throw new ReceiveError("PAUSED", what, {
        cause,
        hint: `at its monitor: migrate_recover ${uri}, then at the source's: migrate -r ${uri}`,
      });
    }
  }
}
