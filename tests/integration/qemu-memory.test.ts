/**
 * Guests whose memory is not one block of small pages: huge pages, several blocks, many GiB. Each is
 * captured from a real QEMU and restored in another one, where it counts on.
 */
import { expect } from "bun:test";
import { readManifest } from "../../src/guests/snapshot/manifest.ts";
import type { DestReport, SourceReport } from "../../src/report/report.ts";
import {
  HUGE_PAGE_BYTES,
  HugePages,
  needHugePages,
  PAGES_PER_HUGE_PAGE,
} from "../helpers/huge-pages.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import {
  captureQemu,
  enablePostcopy,
  expectCountsOn,
  restoreIntoQemu,
  slowPrecopy,
} from "../helpers/qemu-snapshot.ts";
import {
  machineOf,
  needQemuVersion,
  qemuProgram,
  QEMU_VERSIONS,
} from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { QemuOptions } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

/** So slowly that the guest asks for some pages, however late QEMU gets it going. */
const PUSH_RATE = ["--max-postcopy-bandwidth", "128MiB/s"];

interface Trip {
  captured: DestReport;
  restored: SourceReport;
  /** Page sizes of the blocks that the snapshot lists, by name. */
  pageSizes: Readonly<Record<string, number>>;
}

/** Captures a guest, in its second precopy round or at once, and restores it; it counts on. */
async function roundTrip(
  how: QemuOptions,
  { round = 2, preempt = false }: { round?: number; preempt?: boolean } = {},
): Promise<Trip> {
  await using directory = new TemporaryDirectory("memory");
  const snapshot = directory.file("guest");
  await using source = await startQemu(how);
  await enablePostcopy(source);
  await slowPrecopy(source);
  await source.waitForRounds(3);
  const before = await source.readCount();
  const captured = await captureQemu(source, snapshot, { round });
  await using destination = await startQemu({ ...how, incoming: "defer" });
  const restored = await restoreIntoQemu(snapshot, destination, {
    capabilities: { "postcopy-preempt": preempt },
    flags: [...PUSH_RATE, ...(preempt ? ["--preempt"] : [])],
  });
  await expectCountsOn(destination, before);
  const { blocks } = readManifest(snapshot);
  const pageSizes = Object.fromEntries(blocks.map(({ name, pageSize }) => [name, pageSize]));
  return { captured, restored, pageSizes };
}

/** Two guests of 64 MiB. */
const HUGE_POOL = 64;
const HUGE_MEMORY = ["-object", "memory-backend-memfd,id=m0,size=64M,hugetlb=on,hugetlbsize=2M"];

for (const version of QEMU_VERSIONS) {
  const needs = [needQemuVersion(version), needUserfaultfd(), needHugePages(HUGE_POOL)];
  for (const preempt of [false, true]) {
    const how = preempt ? ", with preempt" : "";
    requireOrSkip(...needs)(
      `a guest of QEMU ${version} in huge pages goes there and back${how}`,
      async () => {
        await using _pool = await HugePages.add(HUGE_POOL);
        const { captured, restored, pageSizes } = await roundTrip(
          {
            program: qemuProgram(version),
            machine: `${machineOf(version)},memory-backend=m0`,
            extraArguments: HUGE_MEMORY,
          },
          { preempt },
        );
        expect(pageSizes).toMatchObject({ m0: HUGE_PAGE_BYTES, "pc.bios": 4096 });
        // All that the guest counts in was discarded in whole huge pages: 0 to 44 MiB.
        expect(captured.pages.missing).toBeGreaterThanOrEqual(22 * PAGES_PER_HUGE_PAGE);
        // Whatever was asked for in the guest's memory was sent whole.
        const { pages, requests, urgentChannel } = restored;
        expect(urgentChannel).toBe(preempt);
        expect(requests.served).toBeGreaterThan(0);
        const sent = pages.requestedNormal + pages.requestedZero;
        expect(sent).toBeGreaterThanOrEqual(PAGES_PER_HUGE_PAGE);
        expect(sent % PAGES_PER_HUGE_PAGE).toBeLessThan(requests.served);
      },
    );
  }
}

/**
 * Two nodes, of which the counting guest touches both; video memory; the ROM of a network card. What
 * a request means depends on the block that it names.
 */
const MANY_BLOCKS = [
  "-object",
  "memory-backend-memfd,id=n0,size=32M,hugetlb=on,hugetlbsize=2M",
  ...["-object", "memory-backend-ram,id=n1,size=32M"],
  ...["-numa", "node,memdev=n0", "-numa", "node,memdev=n1"],
  ...["-device", "VGA", "-device", "e1000"],
];

for (const version of QEMU_VERSIONS) {
  requireOrSkip(
    needQemuVersion(version),
    needUserfaultfd(),
    needHugePages(HUGE_POOL),
  )(
    `a guest of QEMU ${version} with many RAM blocks, of huge pages and small, goes there and back`,
    async () => {
      await using _pool = await HugePages.add(HUGE_POOL);
      const { pageSizes, restored } = await roundTrip({
        program: qemuProgram(version),
        machine: machineOf(version),
        extraArguments: MANY_BLOCKS,
      });
      expect(pageSizes).toMatchObject({ n0: HUGE_PAGE_BYTES, n1: 4096 });
      const names = Object.keys(pageSizes);
      for (const part of ["vga.vram", "vga.rom", "e1000.rom", "pc.bios"]) {
        expect(names.filter((name) => name.endsWith(part))).toHaveLength(1);
      }
      expect(restored.requests.served).toBeGreaterThan(0);
    },
  );
}

/** Far below the memory of the guest, and about what the program takes for one of 64 MiB. */
const PROGRAM_BYTES_MAX = 256 * 2 ** 20;

requireOrSkip(needQemuVersion("11.1"), needUserfaultfd())(
  "a guest of QEMU 11.1 of 8 GiB goes there and back in little memory",
  async () => {
    const { captured, restored } = await roundTrip({
      program: qemuProgram("11.1"),
      machine: machineOf("11.1"),
      memoryMib: 8192,
    });
    for (const { memory } of [captured, restored]) {
      console.error(memory);
      expect(memory.guestBytes).toBeGreaterThanOrEqual(8 * 2 ** 30);
      expect(memory.peakRssBytes).toBeLessThan(PROGRAM_BYTES_MAX);
    }
  },
);
