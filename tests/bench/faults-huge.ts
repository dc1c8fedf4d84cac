/** Remote faults on huge pages of 2 MiB, each of which is asked for, sent and placed as a whole. */
import type { Benchmark, Run } from "../../src/bench/contest.ts";
import { FAULT_FIGURES, faultsRun } from "../../src/bench/faults.ts";
import { moveStress } from "../../src/bench/stress-move.ts";
import { mapAnonymous, scratchAt } from "../../syscalls/memory.ts";
import { HUGE_PAGE_BYTES, HugePages, needHugePages } from "../helpers/huge-pages.ts";
import { hugePagesOf } from "../helpers/random-guest.ts";
import {
  FAULT_NOTES,
  FAULT_TARGETS,
  faultsIntoQemu,
  faultsOfQemu,
  hasQemu,
  keepGuest,
  LOOPBACK,
} from "./faults.ts";
import type { Setting } from "./faults.ts";
import { C_NOTE, faultsInC, hasC } from "./faults-in-c.ts";
import {
  C_PARKED,
  C_PROGRAM,
  OUR_PROGRAM,
  OURS,
  oursToQemu,
  qemuProgramName,
  qemuToQemu,
} from "./names.ts";

const MEMORY_MIB = 512;
const QUICK_MEMORY_MIB = 128;

/** The comparison; undefined where there is no QEMU 11.1, or too little memory for huge pages. */
export async function faultsHuge({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  const memoryMib = quick ? QUICK_MEMORY_MIB : MEMORY_MIB;
  // Both ends of a move have the guest.
  const pool = 2 * hugePagesOf(memoryMib);
  if (!hasQemu("faults-huge", needHugePages(pool))) return undefined;
  const withPool = async <T>(run: () => Promise<T>): Promise<T> => {
    await using _pool = await HugePages.add(pool);
    touch(pool);
    return await run();
  };
  const setting: Setting = { memoryMib, limit: 0, ends: LOOPBACK, hugePages: true };
  const snapshot = await withPool(() => keepGuest(memoryMib, true));
  const contender = (name: string, program: string, run: () => Promise<Run>) => {
    return { name, program, run: () => withPool(run) };
  };
  return {
    id: "faults-huge",
    title: "Remote faults on huge pages",
    setting: `As the remote faults, with ${memoryMib} MiB in huge pages of 2 MiB, at full speed.`,
    axis: null,
    figures: FAULT_FIGURES,
    contenders: [
      contender(qemuToQemu("11.1"), qemuProgramName("11.1"), () => faultsOfQemu(setting)),
      contender(oursToQemu("11.1"), `${OUR_PROGRAM}, ${qemuProgramName("11.1")}`, () =>
        faultsIntoQemu(snapshot, setting),
      ),
      contender(OURS, OUR_PROGRAM, () => moveHuge(memoryMib)),
      ...(hasC("faults-huge")
        ? [contender(C_PARKED, C_PROGRAM, () => faultsInC(memoryMib, "huge", 0))]
        : []),
    ],
    targets: FAULT_TARGETS,
    notes: [
      ...FAULT_NOTES,
      C_NOTE,
      "A run has 100 to 250 faults: its slowest percent are the two slowest of them.",
    ],
  };
}

/** Touches every page of the pool: where the host must first find its memory nobody is to wait for it. */
function touch(pages: number): void {
  using memory = mapAnonymous(pages * HUGE_PAGE_BYTES, { pageSize: HUGE_PAGE_BYTES });
  for (let page = 0; page < pages; page++) {
    scratchAt(memory.address + page * HUGE_PAGE_BYTES, 1).bytes[0] = 1;
  }
}

async function moveHuge(memoryMib: number): Promise<Run> {
  const shape = `size=${memoryMib}MiB,page-size=2M,workers=1,zero=0`;
  const guest = `stress:${shape},rate=unlimited,hot-share=0,duration=10ms`;
  const { source, dest } = await moveStress(guest, ["--switchover", "now"]);
  const { latencyNs } = dest.faults;
  if (latencyNs === null || source.rates.postcopy === null) throw new Error("no faults");
  return faultsRun(latencyNs.buckets, latencyNs.mean, source.rates.postcopy);
}
