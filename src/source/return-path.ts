/**
 * The return path at the source: reads the destination's messages and answers each page request
 * itself, in the thread that read it (QEMU's `source_return_path_thread`).
 */
import { monotonicNs } from "../../syscalls/process.ts";
import { acknowledgeNow } from "../../syscalls/socket.ts";
import { ChannelError } from "../channel/channel.ts";
import type { Channel } from "../channel/channel.ts";
import { PageBitmap } from "../ram/bitmap.ts";
import { blockNamedIn, targetPages } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import { SOURCE } from "../report/counters.ts";
import { RETURN_PATH } from "../stream/constants.ts";
import { aheadPass, PING_WORKING_SET, PONG_RUNNING, readHello } from "../stream/hello.ts";
import { byteString } from "../stream/reader.ts";
import { readReceivedBitmap } from "../stream/received-bitmap.ts";
import { createReturnPathRecord, decodeReturnPath, returnPathName } from "../stream/return-path.ts";
import type { ReturnPathRecord } from "../stream/return-path.ts";
import type { Favour } from "../sync/favour.ts";
import { PostcopyError, StreamError } from "../util/errors.ts";
import { followHostPages } from "./host-pages.ts";
import { takeIdentityPong } from "./identity.ts";
import { oweMissing } from "./owed.ts";
import type { RequestServer } from "./request-server.ts";
import { TIME, WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";
import { PING_LOADED } from "./stream.ts";

/** How long a destination that takes no more pages may take to say why. */
const LAST_WORDS_MS = 1000;
/** Largest status that is kept as it came: what an Int32Array holds. */
const STATUS_MAX = 0x7fffffff;

/** What the loop works with. */
export interface ReturnPathContext {
  /** The main channel, which this thread reads. */
  channel: Channel;
  shared: SourceShared;
  blocks: readonly RamBlock[];
  server: RequestServer;
  /** The priority of this thread, which it is to lose when it is flooded. */
  favour: Pick<Favour, "turn" | "beFirst">;
}

/**
 * Reads until SHUT. Whatever ends it, `finished` is set, so that the migration thread notices.
 * @throws ChannelError, StreamError, StoppedError.
 */
export function runReturnPath(context: ReturnPathContext): void {
  const { shared } = context;
  try {
    readUntilShut(context);
  } finally {
    shared.finished.set();
  }
}

/** Answers a request; false where that cannot be, as the destination has hung up and said why. */
function answers(
  context: ReturnPathContext,
  block: RamBlock | undefined,
  record: ReturnPathRecord,
  arrived: number,
): boolean {
  try {
    answer(context, block, record, arrived);
    return true;
  } catch (error) {
    if (error instanceof ChannelError && hearLastWords(context)) return false;
    throw error;
  }
}

/**
 * A page could not be sent, as the destination has hung up, maybe on another channel: what it said last
 * still lies behind requests that nobody answers any more. What else it has said counts: a refusal is none
 * behind the word that the device state is loaded. Returns whether that was why.
 */
function hearLastWords({ channel, shared }: ReturnPathContext): boolean {
  const { reader } = channel;
  const record = createReturnPathRecord();
  channel.allow(LAST_WORDS_MS, "say why it hung up");
  try {
    for (;;) {
      const { bytes, view, pos, end, base } = reader;
      const taken = decodeReturnPath(bytes, view, pos, end, record, base);
      if (taken === 0) reader.ensure(reader.available + 1);
      else if (record.type === RETURN_PATH.pong) takePong(shared, record.value, monotonicNs());
      else if (record.type === RETURN_PATH.shut && record.value > 0) break;
      reader.pos += taken;
    }
  } catch (error) {
    if (error instanceof PostcopyError) return false;
    throw error;
  }
  takeShut(shared, record.value);
  return true;
}

function readUntilShut(context: ReturnPathContext): void {
  const { favour, channel } = context;
  const { reader } = channel;
  const known = new Set<RamBlock>();
  followHostPages(context.shared, context.blocks);
  const record = createReturnPathRecord();
  let block: RamBlock | undefined;
  let first = false;
  for (;;) {
    favour.turn();
    const taken = decodeReturnPath(
      reader.bytes,
      reader.view,
      reader.pos,
      reader.end,
      record,
      reader.base,
    );
    if (taken === 0) {
      acknowledgeToQemu(context);
      reader.ensure(reader.available + 1);
      continue;
    }
    const arrived = monotonicNs();
    const named = record.nameLength > 0 ? namedBlock(context, record) : undefined;
    if (record.type === RETURN_PATH.requestPagesId) block = named;
    reader.pos += taken;
    switch (record.type) {
      case RETURN_PATH.requestPagesId:
      case RETURN_PATH.requestPages:
        if (!answers(context, block, record, arrived)) return;
        break;
      case RETURN_PATH.pong:
        takePong(context.shared, record.value, arrived);
        // A fault of a QEMU waits for QEMU's threads: it comes no sooner, and the push gets on less.
        if (!first && Atomics.load(context.shared.control, WORD.peerFeatures) > 0) {
          first = true;
          favour.beFirst();
        }
        break;
      case RETURN_PATH.shut:
        takeShut(context.shared, record.value);
        return;
      case RETURN_PATH.switchoverAck:
        break;
      case RETURN_PATH.receivedBitmap:
        takeBitmap(context, named, known);
        break;
      case RETURN_PATH.resumeAck:
        takeResumeAck(context.shared);
        break;
      default: {
        const name = returnPathName(record.type);
        throw new StreamError("UNEXPECTED", `The destination sent ${name}, which nobody asked for`);
      }
    }
  }
}

/**
 * A QEMU's socket holds a page request back until the one before is acknowledged (Nagle), which is
 * when the next piece of the push goes out: under a limited push that is most of a millisecond.
 */
function acknowledgeToQemu({ channel, shared }: ReturnPathContext): void {
  if (Atomics.load(shared.control, WORD.peerFeatures) === 0) acknowledgeNow(channel.fd);
}

/** SHUT ends the return path. That all is well it can only say when it has everything. */
function takeShut(shared: SourceShared, status: number): void {
  if (status === 0 && Atomics.load(shared.control, WORD.ended) === 0) {
    throw new StreamError("UNEXPECTED", "The destination said that it is done, which it cannot be");
  }
  Atomics.store(shared.control, WORD.shutStatus, Math.min(status, STATUS_MAX));
}

function takeResumeAck({ control, resumed }: SourceShared): void {
  if (Atomics.exchange(control, WORD.resumeAwaited, 0) === 0) {
    throw new StreamError("UNEXPECTED", "The destination sent RESUME_ACK, which nobody asked for");
  }
  resumed.set();
}

/**
 * What a destination that recovers has of a block: the rest is owed. `known` are the blocks of which
 * it has told: a second one of a block would stand for that of another, of which nothing is known.
 */
function takeBitmap(
  { channel, shared }: ReturnPathContext,
  block: RamBlock | undefined,
  known: Set<RamBlock>,
): void {
  const { control } = shared;
  const owed = block === undefined ? undefined : shared.owed[block.index];
  if (block === undefined || owed === undefined) throw new Error("a bitmap of no block");
  if (Atomics.load(control, WORD.bitmapsAwaited) === 0) {
    const what = `The destination sent a received bitmap of ${block.name}`;
    throw new StreamError("UNEXPECTED", `${what}, which nobody asked for`);
  }
  if (known.has(block)) {
    const what = `The destination sent two received bitmaps of ${block.name}`;
    throw new StreamError("UNEXPECTED", what);
  }
  known.add(block);
  const pages = targetPages(block);
  const bytes = readReceivedBitmap(channel.reader, block.name, pages);
  const received = new PageBitmap(pages);
  received.bytes.set(bytes);
  oweMissing(block, received, owed);
  if (Atomics.sub(control, WORD.bitmapsAwaited, 1) === 1) shared.bitmapsKnown.set();
}

function namedBlock(context: ReturnPathContext, record: ReturnPathRecord): RamBlock {
  const { bytes } = context.channel.reader;
  const { nameAt, nameLength } = record;
  const block = blockNamedIn(context.blocks, bytes, nameAt, nameLength);
  if (block === undefined) {
    const name = byteString(bytes, nameAt, nameLength);
    throw new StreamError("BAD_REQUEST", `The destination names the unknown block "${name}"`);
  }
  return block;
}

function answer(
  context: ReturnPathContext,
  block: RamBlock | undefined,
  record: ReturnPathRecord,
  arrived: number,
): void {
  const { shared } = context;
  if (block === undefined) {
    throw new StreamError("BAD_REQUEST", "The first page request does not name its block");
  }
  followHostPages(shared, context.blocks);
  const { start, length } = record;
  const aligned = start % block.pageSize === 0 && length % block.pageSize === 0;
  if (!aligned || start + length > block.length) {
    throw new StreamError(
      "BAD_REQUEST",
      `The destination asks for ${length} bytes at ${start} of ${block.name}, which has ` +
        `${block.length} bytes in pages of ${block.pageSize}`,
    );
  }
  if (Atomics.load(shared.control, WORD.serving) === 0) {
    throw new StreamError("BAD_REQUEST", "The destination asks for a page before the switchover");
  }
  shared.counters.add(SOURCE.requestsReceived, 1);
  if (context.server.serve(block, start, length) === 0) {
    shared.counters.add(SOURCE.requestsDuplicate, 1);
    return;
  }
  shared.counters.add(SOURCE.requestsServed, 1);
  shared.requestTimes.record(monotonicNs() - arrived);
}

function takePong(shared: SourceShared, value: number, arrived: number): void {
  if (value === PING_LOADED) {
    shared.times[TIME.loaded] = arrived;
  } else if (value === PONG_RUNNING) {
    shared.times[TIME.running] = arrived;
  } else if (value === PING_WORKING_SET) {
    shared.times[TIME.workingSet] = arrived;
  } else if (aheadPass(value) !== undefined) {
    Atomics.store(shared.control, WORD.aheadPass, aheadPass(value) ?? 0);
    Atomics.notify(shared.control, WORD.aheadPass);
  } else {
    takeIdentityPong(shared, value);
    const hello = readHello(value);
    if (hello?.kind !== "hello" && hello?.kind !== "answer") return;
    shared.times[TIME.helloAnswered] = arrived;
    // A QEMU echoes the hello as it came; only one of ours answers it.
    Atomics.store(shared.control, WORD.peerFeatures, hello.kind === "answer" ? hello.bits : 0);
    shared.peerKnown.set();
  }
}
