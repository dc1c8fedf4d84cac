/** Limits of the bandwidth: they hold, and no requested page is ever held back by one. */
import { expect } from "bun:test";

import { expectMoved, move, pages } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";

const migrationTest = requireOrSkip(needUserfaultfd());

const MEBIBYTE = 2 ** 20;

migrationTest("--max-bandwidth holds in precopy", async () => {
  const guest = "stress:size=8MiB,zero=0,discard=0,duration=50ms";
  const sourceFlags = ["--switchover", "rounds=1", "--max-bandwidth", "8MiB/s"];
  const { source, dest } = await move({ guest, sourceFlags });
  expectMoved(source, dest, pages("8MiB"));
  const [round] = source.report.rounds;
  // A tenth of a second of it may be saved up.
  expect(round?.durationMs).toBeGreaterThan(850);
  expect(round?.bytes).toBeGreaterThan(8 * MEBIBYTE);
});

migrationTest("--max-postcopy-bandwidth holds for the push", async () => {
  // Nobody asks for anything: the guest only looks at a page now and then.
  const guest = "stress:size=8MiB,zero=0,workers=1,hot=0.001,hot-share=1,rate=1MiB/s,duration=50ms";
  const sourceFlags = ["--switchover", "now", "--max-postcopy-bandwidth", "8MiB/s"];
  const { source, dest } = await move({ guest, sourceFlags });
  expectMoved(source, dest, pages("8MiB"));
  expect(source.report.times.postcopy).toBeGreaterThan(850);
});

migrationTest("--max-postcopy-bandwidth does not hold back what is asked for", async () => {
  // The guest soon wants every page; at the rate of the push they would take two minutes.
  const guest = "stress:size=8MiB,zero=0,hot=1,discard=0,rate=unlimited,duration=50ms";
  const sourceFlags = ["--switchover", "now", "--max-postcopy-bandwidth", "64KiB/s"];
  const { source, dest } = await move({ guest, sourceFlags });
  expectMoved(source, dest, pages("8MiB"));
  expect(source.report.times.postcopy).toBeLessThan(60_000);
  expect(source.report.pages.requestedNormal).toBeGreaterThan(0.5 * pages("8MiB"));
  const seconds = (source.report.times.postcopy ?? 0) / 1000;
  expect(source.report.bytes.postcopy).toBeLessThan((seconds + 3) * 64 * 1024 + 128 * 1024);
});
