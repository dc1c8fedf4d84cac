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
  /** Its memory lies in huge pages of 2 MiB, which the host must have. */
  hugePages?: boolean;
}

/** Huge pages of 2 MiB that one such guest takes. */
export function hugePagesOf(memoryMib: number): number {
  return (memoryMib + SPARE_MIB) / 2;
}

/** Starts the QEMU; with `incoming` one that waits for such a guest. */
export async function startRandomGuest(options: RandomGuestOptions): Promise<Qemu> {
  const { memoryMib, hugePages = false, ...rest } = options;
  const range = { startAddress: MIB, endAddress: (memoryMib + 1) * MIB };
  const bootSector = buildBootSector(range, { filled: true, random: true });
  const size = memoryMib + SPARE_MIB;
  const backend = `memory-backend-memfd,id=m0,size=${size}M,hugetlb=on,hugetlbsize=2M`;
  const memory: Partial<QemuOptions> = hugePages
    ? { machine: "pc,memory-backend=m0", extraArguments: ["-object", backend] }
    : {};
  return await startQemu({ ...rest, ...memory, memoryMib: size, bootSector });
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
