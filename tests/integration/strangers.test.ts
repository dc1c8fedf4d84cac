/** Who else connects to where a migration is awaited, before it comes and while it runs. */
import { expect } from "bun:test";
import { readdirSync } from "node:fs";

import { RAM_FLAG } from "../../src/stream/constants.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { Crowd } from "../helpers/crowd.ts";
import { HandMadePeer } from "../helpers/hand-made-peer.ts";
import { bytesOf, command, page } from "../helpers/hand-made-stream.ts";
import { Link } from "../helpers/link.ts";
import { expectMoved, pages, startDest, startSource } from "../helpers/migration.ts";
import type { DestRole } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";

const migrationTest = requireOrSkip(needUserfaultfd());

const GUEST = "stress:size=16MiB,rate=unlimited,discard=0,duration=100ms";
const COUNT = pages("16MiB");
const SLOW = ["--switchover", "now", "--max-postcopy-bandwidth", "8MiB/s"] as const;

/** What comes before a link stands still: the guest runs by then, and most of it is missing. */
const HELD_BEHIND = 2 ** 20;

/** Connections that say what they are given, closed when the stack goes. */
async function callers(
  stack: AsyncDisposableStack,
  dest: DestRole,
  words: Uint8Array,
  count = 4,
): Promise<void> {
  for (let i = 0; i < count; i++) {
    stack.use(await HandMadePeer.connect(dest.peer)).send(words);
  }
}

const SILENCE = new Uint8Array(0);
const FORGERY = bytesOf(page(0, 77, "stress.ram"), (writer) => writer.u64(RAM_FLAG.endOfSection));

for (const [who, words] of [
  ["silent connections", SILENCE],
  ["strangers with pages and EOS", FORGERY],
] as const) {
  migrationTest(`${who}, before a migration and during it, do no harm`, async () => {
    await using stack = new AsyncDisposableStack();
    await using dest = await startDest();
    await callers(stack, dest, words);
    await using source = startSource({ to: dest.peer, guest: GUEST, flags: SLOW });
    await dest.event("connected");
    await callers(stack, dest, words);
    await dest.event("running");
    await callers(stack, dest, words);
    const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
    expectMoved(sourceEnd, destEnd, COUNT);
    expect(destEnd.report.urgentChannel).toBe(true);
    expect(destEnd.report.pages.urgentNormal).toBeGreaterThan(0);
  });
}

const CROWD = 1000;
/** Descriptors that a crowd may cost a destination at any time: those who have not spoken yet. */
const CROWD_DESCRIPTORS_MAX = 40;
const SOME_PAGES_BYTES = 64 * 1024;

migrationTest("a thousand connections at each moment bar nobody's way", async () => {
  await using stack = new AsyncDisposableStack();
  const crowd = stack.use(new Crowd());
  await using dest = await startDest();
  const openDescriptors = (): number => readdirSync(`/proc/${dest.program.pid}/fd`).length;
  const before = openDescriptors();
  let most = 0;
  const come = async (): Promise<void> => {
    await crowd.connect(dest.peer, CROWD);
    most = Math.max(most, openDescriptors());
  };
  await come();
  await using link = await Link.start(dest.peer);
  const precopy = ["--switchover", "rounds=1000", "--max-bandwidth", "16MiB/s"];
  const flags = [...precopy, "--max-postcopy-bandwidth", "8MiB/s"];
  await using source = startSource({ to: link.uri, guest: GUEST, flags });
  await dest.event("guest");
  await come();
  // The urgent channel comes behind all of them.
  source.program.writeLine("switchover");
  await dest.event("running");
  // What is asked for comes, but not the end of it all.
  link.hold(0);
  await come();
  await waitUntil(
    () => link.carried(1) > SOME_PAGES_BYTES,
    "requested pages on the urgent channel",
  );
  link.cut();
  await dest.phase("paused");
  await come();
  link.mend(dest.peer);
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  expect([sent, got].map(({ exitCode, stderr }) => ({ exitCode, stderr }))).toMatchObject([
    { exitCode: 0 },
    { exitCode: 0 },
  ]);
  expect(got.report.audit).toEqual({ pagesChecked: COUNT, pagesWrong: 0 });
  expect(got.report.pages.urgentNormal).toBeGreaterThan(0);
  expect(sent.report).toMatchObject({ outcome: "completed", recoveries: 1 });
  expect(most - before).toBeLessThan(CROWD_DESCRIPTORS_MAX);
  // What they do is told, but not of each of them: twenty times for each that looks after them.
  const warnings = got.events.filter((event) => event.event === "warning");
  expect(warnings.length).toBeLessThan(100);
});

/** Each with silent connections beside it: together more than the crowd may cost. */
const TRIES = 8;
const BESIDE = 15;

migrationTest("strangers who try to resume a guest in vain cost it nothing", async () => {
  await using dest = await startDest();
  await using link = await Link.start(dest.peer);
  link.holdBehind(HELD_BEHIND);
  await using source = startSource({ to: link.uri, guest: GUEST, flags: SLOW });
  await dest.event("running");
  link.cut();
  await dest.phase("paused");
  const openDescriptors = (): number => readdirSync(`/proc/${dest.program.pid}/fd`).length;
  const before = openDescriptors();
  for (let i = 0; i < TRIES; i++) {
    await using stack = new AsyncDisposableStack();
    await callers(stack, dest, SILENCE, BESIDE);
    const caller = stack.use(await HandMadePeer.connect(dest.peer));
    caller.send(command({ kind: "recvBitmap", block: "x" }));
    await waitUntil(() => caller.ended, "the end of a try in vain");
  }
  expect(openDescriptors() - before).toBeLessThan(CROWD_DESCRIPTORS_MAX);
  link.mend(dest.peer);
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  expect([sent.exitCode, got.exitCode]).toEqual([0, 0]);
  expect(got.report.audit).toEqual({ pagesChecked: COUNT, pagesWrong: 0 });
  expect(sent.report.recoveries).toBe(1);
});
