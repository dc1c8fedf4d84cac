/** A long link: what is pushed does not wait for answers, and what is asked for not for the push. */
import { expect } from "bun:test";

import { DelayedLink } from "../helpers/delayed-link.ts";
import { expectMoved, pages, startDest, startSource } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";

const migrationTest = requireOrSkip(needUserfaultfd());

const GUEST = "stress:size=64MiB,zero=0,workers=1,rate=unlimited,hot-share=0,duration=10ms";
/** One way; a request and its answer take twice that. */
const DELAY_MS = 20;
/** What the push writes at once. */
const CHUNK_BYTES = 128 * 1024;
/** So slow that the guest asks for pages meanwhile, and ten chunks in the time of one way. */
const LIMIT = ["--max-postcopy-bandwidth", "64MiB/s"];

migrationTest("with a delay, the push keeps the link full, and requests are answered", async () => {
  await using dest = await startDest();
  await using link = await DelayedLink.start(dest.peer, DELAY_MS);
  const flags = ["--switchover", "now", ...LIMIT];
  await using source = startSource({ to: link.uri, guest: GUEST, flags });
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  expectMoved(sourceEnd, destEnd, pages("64MiB"));
  // A push that waited for an answer would have one chunk under way, or two.
  expect(await link.mostUnderWay()).toBeGreaterThan(4 * CHUNK_BYTES);
  expect(destEnd.report.urgentChannel).toBe(true);
  const { latencyNs } = destEnd.report.faults;
  expect(latencyNs?.count).toBeGreaterThan(0);
  // Nothing overtakes the delay: the link is as long as it says.
  expect(latencyNs?.max).toBeGreaterThan(2 * DELAY_MS * 1e6);
});
