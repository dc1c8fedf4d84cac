/** How long our guest stands still, from its last instruction at the source to its first here. */
import type { Benchmark, Contender } from "./contest.ts";
import { OUR_PROGRAM, OURS } from "./names.ts";
import type { Figure } from "./result.ts";
import { moveStress } from "./stress-move.ts";

/** Rounds of precopy before the switch, of every contender. */
export const DOWNTIME_ROUNDS = 2;
/** What the guest dirties, in MiB a second. */
export const DIRTIED_MIB = 200;
export const DOWNTIME: Figure = { id: "downtime", title: "downtime", unit: "ms", better: "less" };

export const OUR_DOWNTIME_NOTES = [
  "Ours is from the last access to memory of any of the guest's threads at the source to the first " +
    "moment in which one runs at the destination, on one clock. The guest has two threads, which write " +
    "as much together.",
];

export function downtimeMemoryMib(quick: boolean): number {
  return quick ? 64 : 1024;
}

/** What is compared, and in which setting. */
export function describeDowntime(
  quick: boolean,
): Pick<Benchmark, "id" | "title" | "setting" | "axis" | "figures"> {
  return {
    id: "downtime",
    title: "Downtime of a guest that writes",
    setting:
      `A guest of ${downtimeMemoryMib(quick)} MiB that dirties ${DIRTIED_MIB} MiB a second, at random ` +
      "places of which an eighth are hot, moves over TCP on the loopback: " +
      `${DOWNTIME_ROUNDS} rounds of precopy, then post-copy.`,
    axis: null,
    figures: [DOWNTIME],
  };
}

/** Our own ends; `program` is how this program is started, if not as it was itself. */
export function ourDowntime(quick: boolean, program?: readonly string[]): Contender {
  const size = `size=${downtimeMemoryMib(quick)}MiB,rate=${DIRTIED_MIB}MiB/s`;
  const guest = `stress:${size},hot=0.125,hot-share=0.875,zero=0,duration=100ms`;
  return {
    name: OURS,
    program: OUR_PROGRAM,
    run: async () => {
      const flags = ["--switchover", `rounds=${DOWNTIME_ROUNDS}`];
      const { dest } = await moveStress(guest, flags, program === undefined ? {} : { program });
      if (dest.downtime === null) throw new Error("no downtime was measured");
      return { values: { [DOWNTIME.id]: dest.downtime.ms } };
    },
  };
}

/** Ours alone, for where no QEMU is. */
export function ownDowntime({ quick }: { quick: boolean }): Promise<Benchmark> {
  return Promise.resolve({
    ...describeDowntime(quick),
    contenders: [ourDowntime(quick)],
    targets: [],
    notes: OUR_DOWNTIME_NOTES,
  });
}
