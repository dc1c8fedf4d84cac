/** Who else connects to where a migration is awaited, before it comes and while it runs. */
import { expect } from "bun:test";

import { RAM_FLAG } from "../../src/stream/constants.ts";
import { HandMadePeer } from "../helpers/hand-made-peer.ts";
import { bytesOf, page } from "../helpers/hand-made-stream.ts";
import { expectMoved, pages, startDest, startSource } from "../helpers/migration.ts";
import type { DestRole } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";

const migrationTest = requireOrSkip(needUserfaultfd());

const GUEST = "stress:size=16MiB,rate=unlimited,discard=0,duration=100ms";
const COUNT = pages("16MiB");
const SLOW = ["--switchover", "now", "--max-postcopy-bandwidth", "8MiB/s"] as const;

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
