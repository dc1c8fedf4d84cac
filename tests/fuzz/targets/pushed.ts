/**
 * A push channel beside the main one: it is found among further connections by its head, read to its
 * end, and met by who reads the main one. What was placed is what another reading of the records says.
 */
import { closeDescriptor, POLL, PollSet } from "../../../syscalls/descriptor.ts";
import { makeSocketPair } from "../../../syscalls/socket.ts";
import type { ReceiveBuffer, PageSink } from "../../../src/dest/guest.ts";
import { FurtherConnections } from "../../../src/dest/further-connections.ts";
import { awaitPushed, letPushed, runPushed } from "../../../src/dest/pushed-pages.ts";
import { createDestShared, destCountsOf, DestShared, WORD } from "../../../src/dest/shared.ts";
import type { RamBlock } from "../../../src/ram/block.ts";
import { DEST } from "../../../src/report/counters.ts";
import { CHANNEL_HEAD_BYTES, channelHead } from "../../../src/stream/further-channel.ts";
import { LARGE_GUEST_BYTES, STRESS_BLOCK } from "../constants.ts";
import { recordsLayout } from "../layouts.ts";
import type { Material } from "../mutate.ts";
import { readPages } from "../page-records.ts";
import type { ReadPage } from "../page-records.ts";
import { Finding, same } from "../target.ts";
import type { Target, Verdict } from "../target.ts";
import {
  channelOver,
  checkingSink,
  errors,
  filledSocket,
  shortened,
  SOCKET_BYTES_MAX,
  TOKEN,
} from "./channels.ts";

const PAGE = 4096;
/** Which of the channels it is. */
const INDEX = 1;
const LINK_TIMEOUT_MS = 1000;
const EOS = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0x10);

const BLOCKS: readonly RamBlock[] = [
  { index: 0, name: STRESS_BLOCK, length: LARGE_GUEST_BYTES, pageSize: PAGE, address: 0 },
];

/** The beginning of a channel, with the token that is known here, and its end. */
function ended(material: Material): Material {
  const { bytes } = shortened(material);
  const room = SOCKET_BYTES_MAX - EOS.length;
  const records = bytes.subarray(CHANNEL_HEAD_BYTES, lastRecordEnd(material, room));
  const all = new Uint8Array(Buffer.concat([channelHead("push", TOKEN), records, EOS]));
  return { name: material.name, bytes: all, layout: recordsLayout(all) };
}

function lastRecordEnd({ layout }: Material, most: number): number {
  return layout.spans.findLast(({ end }) => end <= most)?.end ?? CHANNEL_HEAD_BYTES;
}

/** Keeps what comes, page by page. */
function keepingSink(buffer: ReceiveBuffer): { sink: PageSink; placed: ReadPage[] } {
  const placed: ReadPage[] = [];
  const checks = checkingSink(BLOCKS, buffer);
  const sink: PageSink = {
    pages: (block, offset, at, count) => {
      checks.pages(block, offset, at, count);
      for (let i = 0; i < count; i++) {
        const from = at + i * PAGE;
        placed.push({ offset: offset + i * PAGE, data: buffer.bytes.slice(from, from + PAGE) });
      }
    },
    zeros: (block, offset, count) => {
      checks.zeros(block, offset, count);
      for (let i = 0; i < count; i++) placed.push({ offset: offset + i * PAGE, data: undefined });
    },
  };
  return { sink, placed };
}

/** The connections that are taken for push channels; closed if they are anything else. */
function find(shared: DestShared, fd: number): number[] {
  const found: number[] = [];
  const poll = new PollSet();
  const connections = new FurtherConnections(
    {
      ...{ shared, listenFd: -1, allow: [], early: [fd], linkTimeoutMs: LINK_TIMEOUT_MS },
      openPush: (each) => void found.push(each),
      warn: () => undefined,
    },
    poll,
    closeDescriptor,
  );
  poll.wait(0);
  connections.serve();
  connections.close();
  return found;
}

const looking = new PollSet();
looking.add(-1, POLL.POLLIN);

/** Whether a connection was cut at its other end. */
function isCut(fd: number): boolean {
  looking.set(0, fd, POLL.POLLIN);
  return looking.wait(0) === 1;
}

function requireState(shared: DestShared, state: Record<string, [word: number, is: number]>): void {
  for (const [name, [word, is]] of Object.entries(state)) {
    const value = Atomics.load(shared.control, word);
    if (value !== is) throw new Finding(`${name} is ${value} afterwards, and not ${is}`);
  }
}

function requirePages(bytes: Uint8Array, placed: readonly ReadPage[]): void {
  const expected = readPages(bytes.subarray(CHANNEL_HEAD_BYTES), STRESS_BLOCK);
  if (expected.length !== placed.length) {
    throw new Finding(`${placed.length} pages were placed of ${expected.length}`);
  }
  const wrong = expected.findIndex(({ offset, data }, i) => {
    const other = placed[i];
    if (other?.offset !== offset) return true;
    if (data === undefined || other.data === undefined) return data !== other.data;
    return !same(data, other.data);
  });
  if (wrong >= 0) throw new Finding(`page ${wrong}, at ${expected[wrong]?.offset}, is another one`);
}

function runPush(bytes: Uint8Array): Verdict {
  const data = createDestShared();
  const shared = new DestShared(data, INDEX);
  for (const word of [WORD.urgentChosen, WORD.pushAwaited, WORD.pageRuns, WORD.packedRuns]) {
    Atomics.store(shared.control, word, 1);
  }
  Atomics.store(shared.control, WORD.urgentToken, TOKEN | 0);
  // A page is missing whatever comes: what broke is to be seen.
  Atomics.store(shared.control, WORD.missing, 1);
  const [fd, ...more] = find(shared, filledSocket(bytes));
  if (fd === undefined) {
    requireState(shared, { pushOpen: [WORD.pushOpen, 0], pushAwaited: [WORD.pushAwaited, 1] });
    return { refused: "TURNED_AWAY" };
  }
  if (more.length > 0) throw new Finding("one connection was found twice");
  if (!same(bytes.subarray(0, CHANNEL_HEAD_BYTES), channelHead("push", TOKEN))) {
    throw new Finding("a stranger was taken for the source");
  }
  requireState(shared, { pushOpen: [WORD.pushOpen, 1], pushAwaited: [WORD.pushAwaited, 0] });
  letPushed(shared);
  const [mainFd, mainSource] = makeSocketPair();
  const channel = channelOver(fd);
  const { sink, placed } = keepingSink(channel.buffer);
  const counts = { exists: 0, retries: 0, dropped: 0 };
  try {
    const verdict = errors(() => {
      runPushed({
        ...{ index: INDEX, channel, shared, blocks: BLOCKS, sink, counts, mainFd },
        linkTimeoutMs: LINK_TIMEOUT_MS,
      });
      awaitPushed(shared, 0);
      return "accepted";
    });
    const isWhole = verdict === "accepted";
    requireState(shared, {
      pushOpen: [WORD.pushOpen, 0],
      pushLost: [WORD.pushLost, isWhole ? 0 : 1],
    });
    if (isCut(mainSource) === isWhole) throw new Finding("the main channel is cut, or is not");
    if (!isWhole) return verdict;
    const all = destCountsOf(data);
    const counted = all.get(DEST.pagesPushed) + all.get(DEST.pagesPushedZero);
    if (counted !== placed.length) throw new Finding(`${counted} of ${placed.length} counted`);
    requirePages(bytes, placed);
    return verdict;
  } finally {
    closeDescriptor(mainFd);
    closeDescriptor(mainSource);
  }
}

const isPush = (name: string): boolean => name.startsWith("push.");

export const PUSHED_TARGETS: readonly Target[] = [
  { name: "push channel", share: 8, takes: isPush, prepare: ended, run: runPush },
];
