/** What every use of a QEMU's monitor for migration needs: capabilities, status, figures. */
import type { QemuFigures } from "../../report/qemu-figures.ts";
import { QmpError } from "../../qmp/client.ts";
import type { QmpClient, QmpEvent } from "../../qmp/client.ts";
import { capabilitiesSchema, migrateSchema } from "../../qmp/messages.ts";
import type { MigrateReply } from "../../qmp/messages.ts";
import { monotonicNs } from "../../../syscalls/process.ts";
import { HostError, PostcopyError } from "../../util/errors.ts";

/** Statuses after which a migration does nothing more. */
const FINAL: ReadonlySet<string> = new Set(["completed", "failed", "cancelled", "none"]);

/** How often a migration that no event tells of is looked at. */
const POLL_MS = 20;
/** How long a QEMU that has every page may take to say that it has completed. */
const END_TIMEOUT_MS = 30_000;

/**
 * Switches capabilities: those in `needed` must be there, those in `wished` are left out where this
 * QEMU has none of that name. Returns the names that are on. @throws PostcopyError NO_CAPABILITY.
 */
export async function switchCapabilities(
  qmp: QmpClient,
  needed: Readonly<Record<string, boolean>>,
  wished: Readonly<Record<string, boolean>>,
): Promise<ReadonlySet<string>> {
  const known = await qmp.execute("query-migrate-capabilities", {}, capabilitiesSchema);
  const names = new Set(known.map(({ capability }) => capability));
  const lacking = Object.keys(needed).filter((name) => !names.has(name));
  if (lacking.length > 0) {
    const what = `QEMU ${qmp.version} has no migration capability ${lacking.join(", ")}`;
    throw new PostcopyError("NO_CAPABILITY", what, { hint: "postcopy takes QEMU 2.6 or later" });
  }
  const asked = { ...wished, ...needed };
  const capabilities = Object.entries(asked)
    .filter(([name]) => names.has(name))
    .map(([capability, state]) => ({ capability, state }));
  await setCapabilities(qmp, capabilities);
  return new Set(capabilities.filter(({ state }) => state).map(({ capability }) => capability));
}

/** Sets them, and says what can be done where QEMU refuses for a known reason. */
async function setCapabilities(
  qmp: QmpClient,
  capabilities: readonly { capability: string; state: boolean }[],
): Promise<void> {
  try {
    await qmp.run("migrate-set-capabilities", { capabilities });
  } catch (cause) {
    if (!(cause instanceof QmpError)) throw cause;
    if (/userfault/i.test(cause.message)) {
      throw new HostError("NO_USERFAULTFD", "That QEMU may have no userfaultfd on this host", {
        cause,
        hint: "postcopy check userfaultfd says how to get it",
      });
    }
    if (/migration process in progress/i.test(cause.message)) {
      throw new PostcopyError("QEMU_BUSY", "That QEMU is migrating already", {
        cause,
        hint: "look at its monitor (info migrate): wait for it, or end it with migrate_cancel",
      });
    }
    throw cause;
  }
}

/** The first release that refuses multifd beside postcopy, before a later one can do both. */
const MULTIFD_JUDGED_MAJOR = 8;

/**
 * Refuses a QEMU that takes multifd and postcopy together and cannot do it: at the end of such a
 * migration the destination aborts (7.2: "yank_unregister_instance"), and the guest with it.
 * @throws PostcopyError MULTIFD.
 */
export async function refuseDeadlyMultifd(qmp: QmpClient): Promise<void> {
  if (Number.parseInt(qmp.version, 10) >= MULTIFD_JUDGED_MAJOR) return;
  const known = await qmp.execute("query-migrate-capabilities", {}, capabilitiesSchema);
  if (!known.some(({ capability, state }) => capability === "multifd" && state)) return;
  const what = `QEMU ${qmp.version} loses the guest when multifd is on in postcopy`;
  throw new PostcopyError("MULTIFD", what, {
    hint: "at the monitors of both ends: migrate_set_capability multifd off",
  });
}

export async function queryMigrate(qmp: QmpClient): Promise<MigrateReply> {
  return await qmp.execute("query-migrate", {}, migrateSchema);
}

/**
 * Waits until a QEMU that has every page is done with its migration. Returns what it says then.
 * @throws MonitorError; PostcopyError NOT_COMPLETED when it is not after a while.
 */
export async function awaitMigrationEnd(qmp: QmpClient): Promise<MigrateReply> {
  const deadline = performance.now() + END_TIMEOUT_MS;
  for (;;) {
    const reply = await queryMigrate(qmp);
    const status = reply.status ?? "none";
    if (FINAL.has(status)) return reply;
    if (performance.now() > deadline) {
      const what = `QEMU has every page, and its migration is ${status}`;
      throw new PostcopyError("NOT_COMPLETED", `${what} after ${END_TIMEOUT_MS / 1000} s`);
    }
    await Bun.sleep(POLL_MS);
  }
}

/** QEMU's own figures; how long it took to start, and how long its guest stood, where known. */
export function qemuFigures(
  version: string,
  reply: MigrateReply,
  startMs: number | null = null,
  stoodStillMs: number | null = null,
): QemuFigures {
  return {
    version,
    status: reply.status ?? "none",
    startMs,
    totalMs: reply["total-time"] ?? null,
    downtimeMs: reply.downtime ?? null,
    blocktimeMs: reply["postcopy-blocktime"] ?? null,
    stoodStillMs,
    requests: reply.ram?.["postcopy-requests"] ?? null,
    latencyMeanNs: reply["postcopy-latency"] ?? null,
    latencyBuckets: reply["postcopy-latency-dist"] ?? null,
  };
}

/** When an event was sent, on this host's monotonic clock in ns: QEMU stamps it by the wall clock. */
export function eventTimeNs(event: QmpEvent): number {
  const ageMs = performance.timeOrigin + performance.now() - event.timeMs;
  return monotonicNs() - Math.max(0, ageMs) * 1e6;
}
