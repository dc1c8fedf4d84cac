/** Guests on 2 MiB pages: discarded, asked for and placed whole, whatever is dirty in them. */
import { expect } from "bun:test";

import {
  HUGE_PAGE_BYTES,
  HugePages,
  needHugePages,
  PAGES_PER_HUGE_PAGE,
} from "../helpers/huge-pages.ts";
import { expectMoved, move, pages, startDest, startSource } from "../helpers/migration.ts";
import { needStrace, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { lengthsPlaced, tracedPlacing } from "../helpers/traced-calls.ts";

/** Both ends are on this host, and each has the whole guest. */
const POOL_PAGES = 32;
const hugeTest = requireOrSkip(needUserfaultfd(), needHugePages(POOL_PAGES));

const HUGE = "stress:size=32MiB,page-size=2M,duration=100ms";
const COUNT = pages("32MiB");

hugeTest("precopy, then postcopy in whole huge pages", async () => {
  await using _ = await HugePages.add(POOL_PAGES);
  const { source, dest } = await move({ guest: HUGE, sourceFlags: ["--switchover", "rounds=1"] });
  expectMoved(source, dest, COUNT);
  expect(source.report.pages.owed % 512).toBe(0);
  const blocks = dest.events.find((event) => event.event === "guest")?.blocks;
  expect(blocks).toEqual([{ name: "stress.ram", bytes: 32 * 2 ** 20, pageSize: 2 * 2 ** 20 }]);
});

hugeTest("pure postcopy: a fault brings a whole huge page on the urgent channel", async () => {
  await using _ = await HugePages.add(POOL_PAGES);
  const guest = "stress:size=32MiB,page-size=2M,blocks=2,rate=unlimited,duration=100ms";
  const sourceFlags = ["--switchover", "now", "--max-postcopy-bandwidth", "8MiB/s"];
  const { source, dest } = await move({ guest, sourceFlags });
  expectMoved(source, dest, COUNT);
  expect(source.report.pages.owed).toBe(COUNT);
  const { urgentNormal, urgentZero } = dest.report.pages;
  expect(urgentNormal + urgentZero).toBeGreaterThan(0);
  // What was sent once more may be cut off when the last page has come.
  const { requestedNormal, requestedZero } = source.report.pages;
  expect((requestedNormal + requestedZero) % 512).toBe(0);
});

const tracedTest = requireOrSkip(needUserfaultfd(), needHugePages(POOL_PAGES), needStrace());

tracedTest(
  "every huge page is placed by one call, whether it was asked for or pushed",
  async () => {
    await using _ = await HugePages.add(POOL_PAGES);
    await using directory = new TemporaryDirectory("placing");
    await using dest = await startDest({ before: tracedPlacing(directory.path) });
    const guest = "stress:size=32MiB,page-size=2M,rate=unlimited,duration=100ms";
    await using source = startSource({ guest, to: dest.peer, flags: ["--switchover", "now"] });
    const [sent, got] = await Promise.all([source.end(), dest.end()]);
    expectMoved(sent, got, COUNT);
    const count = COUNT / PAGES_PER_HUGE_PAGE;
    expect(lengthsPlaced(directory.path)).toEqual(
      Array.from({ length: count }, () => HUGE_PAGE_BYTES),
    );
  },
);

hugeTest("a destination without huge pages says how to get them, and the guest stays", async () => {
  // Enough for the source, nothing for the destination.
  await using _ = await HugePages.exactlyFree(POOL_PAGES / 2);
  await using dest = await startDest();
  await using source = startSource({ to: dest.peer, guest: HUGE });
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  expect(destEnd).toMatchObject({ exitCode: 3, error: { code: "NO_MEMORY" } });
  expect(destEnd.error?.message).toContain("no 16 free huge pages");
  expect(destEnd.error?.hints).toEqual(["reserve them: sysctl vm.nr_hugepages=16 (as root)"]);
  expect(sourceEnd.exitCode).toBe(1);
  expect(sourceEnd.stayed).toMatchObject({ pagesChecked: COUNT, pagesWrong: 0 });
});
