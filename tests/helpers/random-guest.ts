/**
 * A QEMU whose guest writes to pages at random for ever, none of them zero, and what a QEMU says of
 * how long a guest waited for its pages: for measurements of remote faults.
 */
import { buildBootSector } from "./boot-sector.ts";
import { startQemu } from "./qemu.ts";
import type { Qemu, QemuOptions, QemuProgram } from "./qemu.ts";

const MIB = 1024 * 1024;
/** Memory of the guest beside what it fills: the first MiB, and the BIOS's own at the top. */
const SPARE_MIB = 16;

export interface RandomGuestOptions {
  program: QemuProgram;
  /** Memory that it fills, and touches. */
  memoryMib: number;
  incoming?: string;
  extraArguments?: readonly string[];
}

/** Starts the QEMU; with `incoming` one that waits for such a guest. */
export async function startRandomGuest(options: RandomGuestOptions): Promise<Qemu> {
  const { memoryMib, ...rest } = options;
  const range = { startAddress: MIB, endAddress: (memoryMib + 1) * MIB };
  const bootSector = buildBootSector(range, { filled: true, random: true });
  const qemuOptions: QemuOptions = { ...rest, memoryMib: memoryMib + SPARE_MIB, bootSector };
  return await startQemu(qemuOptions);
}

/** What a QEMU of 10.1 or later says of the remote faults of a guest that it received. */
export interface QemuLatency {
  meanNs: number;
  /** Counts of [2^N, 2^(N+1)) µs. */
  buckets: number[];
}

/** Asks a destination on which the capability postcopy-blocktime is on. */
export async function readLatency(destination: Qemu): Promise<QemuLatency> {
  const reply = await destination.qmp.execute<{
    "postcopy-latency"?: number;
    "postcopy-latency-dist"?: number[];
  }>("query-migrate");
  const { "postcopy-latency": meanNs, "postcopy-latency-dist": buckets } = reply;
  if (meanNs === undefined || buckets === undefined) {
    throw new Error(`QEMU tells no latency: ${JSON.stringify(reply)}`);
  }
  return { meanNs, buckets };
}
