/** How soon a kept guest runs again: beside QEMU's own load of it, and by the size of its memory. */
import { statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import type { Benchmark, Contender } from "../../src/bench/contest.ts";
import type { Figure, Target } from "../../src/bench/result.ts";
import { availableBytes } from "../../src/ram/tables.ts";
import { log } from "../../src/util/log.ts";
import { needLinuxGuest } from "../helpers/linux-guest.ts";
import { needUserfaultfd } from "../helpers/need.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { needExecutable } from "./executable.ts";
import { KeptGuests } from "./kept-linux.ts";
import type { OwnWay } from "./kept-linux.ts";
import { OUR_PROGRAM, oursToQemu, qemuProgramName } from "./names.ts";
import { isHere, peers } from "./needs.ts";

const GIB = 2 ** 30;
/** Of 4 GiB, 2.5 are in use. */
const IN_USE = 0.6;
/** Enough to be something, and so little that files of 16 GiB guests fit everywhere. */
const LITTLE = 0.05;

const RUNNING: Figure = { id: "running", title: "until it runs", unit: "ms", better: "less" };
const START: Figure = { id: "start", title: "QEMU's start", unit: "ms", better: "less" };

const ALL_RUN: Figure = { id: "all-run", title: "until all run", unit: "ms", better: "less" };

const NOTES = [
  "Counted from the moment in which a QEMU that has been started answers at its monitor, for all " +
    "alike. How long its start takes is told beside ours.",
  "All files lie in the page cache. The working set was recorded by an earlier restore.",
  "Ours is the executable. QEMU's guest is emulated, and its machine is pc-i440fx-7.2.",
  "With mapped-ram QEMU uses multifd with a channel a core.",
];

function isPossible(id: string): boolean {
  return isHere(id, needUserfaultfd(), needLinuxGuest(), needExecutable());
}

/** Whether a guest of so much memory, of which so much is in use, and its files have room here. */
function hasRoom(id: string, gib: number, share: number): boolean {
  const { bavail, bsize } = statfsSync(tmpdir());
  const used = gib * GIB * share;
  if (availableBytes() > used * 2 + 2 * GIB && bavail * bsize > used * 4) return true;
  log.warn(`${id} is left out for ${gib} GiB: there is too little memory, or room for files`);
  return false;
}

function loadedByQemu(version: QemuVersion, way: OwnWay): string {
  return `QEMU ${version}, its own ${way}`;
}

function ourRestore(guests: KeptGuests, version: QemuVersion, gib: number): Contender {
  return {
    name: oursToQemu(version),
    program: `${OUR_PROGRAM}, ${qemuProgramName(version)}`,
    at: gib,
    run: async () => {
      const { startMs, runningMs } = await guests.restore(version, gib);
      return { values: { [RUNNING.id]: runningMs, [START.id]: startMs } };
    },
  };
}

function ownLoad(guests: KeptGuests, version: QemuVersion, gib: number, way: OwnWay): Contender {
  return {
    name: loadedByQemu(version, way),
    program: qemuProgramName(version),
    at: gib,
    run: async () => ({
      values: { [RUNNING.id]: await guests.loadByQemu(version, gib, way) },
    }),
  };
}

/** A guest most of whose memory is in use, beside QEMU's own ways to bring it back. */
export async function restore({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  const gib = quick ? 1 : 4;
  if (!isPossible("restore") || !hasRoom("restore", gib, IN_USE)) return undefined;
  const guests = new KeptGuests(IN_USE, ["stream", "mapped-ram"]);
  const versions = peers("restore");
  const waysOf = (version: QemuVersion): OwnWay[] =>
    version === "7.2" ? ["stream"] : ["stream", "mapped-ram"];
  const target = (version: QemuVersion, way: OwnWay, times: number): Target => ({
    ...{ figure: RUNNING.id, of: oursToQemu(version), to: loadedByQemu(version, way) },
    ...{ bound: "at most", ratio: 1 / times },
  });
  return {
    id: "restore",
    title: "Restore: until a kept guest runs again",
    setting: `A Linux of ${gib} GiB, 60 % of which are a file in tmpfs without a page of zeros, is brought back into a QEMU.`,
    axis: { title: "memory", unit: "GiB" },
    figures: [RUNNING, START],
    contenders: versions.flatMap((version) => [
      ourRestore(guests, version, gib),
      ...waysOf(version).map((way) => ownLoad(guests, version, gib, way)),
    ]),
    targets: versions.map((version) =>
      version === "7.2" ? target(version, "stream", 40) : target(version, "mapped-ram", 15),
    ),
    notes: NOTES,
  };
}

/** Guests of which as little is in use, by the size of their memory. */
export async function restoreGrowth({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  if (!isPossible("restore-growth")) return undefined;
  const sizes = (quick ? [1] : [1, 4, 8, 16]).filter((gib) =>
    hasRoom("restore-growth", gib, LITTLE),
  );
  const guests = new KeptGuests(LITTLE, []);
  return {
    id: "restore-growth",
    title: "Restore: growth with the guest's memory",
    setting:
      "A Linux, a twentieth of whose memory is a file in tmpfs, is brought back into a QEMU; sizes take turns.",
    axis: { title: "memory", unit: "GiB" },
    figures: [RUNNING, START],
    contenders: peers("restore-growth").flatMap((version) =>
      sizes.map((gib) => ourRestore(guests, version, gib)),
    ),
    targets: [],
    notes: NOTES,
  };
}

/** One snapshot, brought back several times at once. */
export async function restoreClones({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  if (!isPossible("restore-clones")) return undefined;
  const counts = (quick ? [1, 2] : [1, 2, 4, 8]).filter((count) =>
    hasRoom("restore-clones", count, LITTLE),
  );
  const guests = new KeptGuests(LITTLE, []);
  const clones = (version: QemuVersion, count: number): Contender => ({
    name: oursToQemu(version),
    program: `${OUR_PROGRAM}, ${qemuProgramName(version)}`,
    at: count,
    run: async () => {
      const all = Array.from({ length: count }, async (_, clone) => {
        return await guests.restore(version, 1, clone);
      });
      const restores = await Promise.all(all);
      const last = Math.max(...restores.map(({ startMs, runningMs }) => startMs + runningMs));
      return { values: { [ALL_RUN.id]: last } };
    },
  });
  return {
    id: "restore-clones",
    title: "Restore: growth with the number of clones",
    setting:
      "One snapshot of a Linux of 1 GiB, a twentieth of which is a file in tmpfs, is brought back into " +
      "several QEMUs at once, each by a source of its own.",
    axis: { title: "clones", unit: "count" },
    figures: [ALL_RUN],
    contenders: peers("restore-clones").flatMap((version) =>
      counts.map((count) => clones(version, count)),
    ),
    targets: [],
    notes: [
      "Counted from the start of the sources until the last guest runs, QEMU's start and all.",
    ],
  };
}
