/**
 * Channels of pages beside the main stream: the urgent one, multifd's, and the main one of a source
 * that comes back after its link broke.
 */
import { closeSync, constants, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import {
  closeDescriptor,
  makeEventDescriptor,
  PollSet,
  setNonBlocking,
} from "../../../syscalls/descriptor.ts";
import { writeFrom } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { makeSocket, makeSocketPair, startConnect } from "../../../syscalls/socket.ts";
import { Door } from "../../../src/channel/accept.ts";
import { Channel, SIDE_BYTES } from "../../../src/channel/channel.ts";
import type { ChannelError, ChannelOptions } from "../../../src/channel/channel.ts";
import { LimitedWarnings } from "../../../src/channel/limited-warnings.ts";
import { openListener } from "../../../src/channel/listen.ts";
import type { PageSink, ReceiveBuffer } from "../../../src/dest/guest.ts";
import { runListen } from "../../../src/dest/listen.ts";
import { MULTIFD_BUFFER_BYTES } from "../../../src/dest/multifd-channel.ts";
import { MultifdReceiver } from "../../../src/dest/multifd.ts";
import { recoverLink } from "../../../src/dest/recovery.ts";
import { ReturnPath } from "../../../src/dest/return-path.ts";
import {
  attachPageState,
  createDestShared,
  createPageState,
  DestShared,
  WORD,
} from "../../../src/dest/shared.ts";
import { UrgentChannel } from "../../../src/dest/urgent-channel.ts";
import { AddressMap } from "../../../src/ram/address-map.ts";
import type { RamBlock } from "../../../src/ram/block.ts";
import { channelHead } from "../../../src/stream/further-channel.ts";
import type { Layout } from "../layout.ts";
import { recordsLayout } from "../layouts.ts";
import type { Material } from "../mutate.ts";
import { Finding, judge } from "../target.ts";
import type { Place, Target, Verdict } from "../target.ts";
import { blocksOf } from "./blocks.ts";

const PAGE = 4096;
/** What fits into a socket's buffer. */
export const SOCKET_BYTES_MAX = 96 * 1024;
const RECOVERY_TIMEOUT_MS = 20;
/** A channel that is silent has ended here. */
const LINK_TIMEOUT_MS = 1000;
/** A minute, where there is a main channel. */
const MAIN_PATIENCE_MS = 20;
/** Turns of the urgent channel's owner: each reads all that there is. */
const TURNS = 4;
export const TOKEN = 0xdead_beef;

const stopFd = makeEventDescriptor();
const scratch = mapScratch(MULTIFD_BUFFER_BYTES + SIDE_BYTES);

/** A channel over a buffer that all cases use, one after the other. */
export function channelOver(fd: number, bytes = 64 * 1024): Channel {
  const options: ChannelOptions = { fd, stopFd, peer: "the source", bufferBytes: 0 };
  return new Channel(options, { address: scratch.address, length: bytes, pos: 0, end: 0, base: 0 });
}

/** Looks that every page is of a block and within it. */
export function checkingSink(blocks: readonly RamBlock[], buffer: ReceiveBuffer): PageSink {
  const check = (block: RamBlock, offset: number, count: number): void => {
    const isInside = offset % PAGE === 0 && offset >= 0 && offset + count * PAGE <= block.length;
    if (blocks[block.index] !== block || !isInside || count < 1) {
      throw new Finding(`${count} pages at ${offset} of ${block.name} went to the guest`);
    }
  };
  return {
    pages: (block, offset, at, count) => {
      check(block, offset, count);
      if (at < 0 || at + count * PAGE > buffer.bytes.length) {
        throw new Finding(`pages from ${at} of a buffer of ${buffer.bytes.length} bytes`);
      }
    },
    zeros: check,
  };
}

/** Counts pages that were missing, as the sinks of the program do. */
function placingSink(
  blocks: readonly RamBlock[],
  buffer: ReceiveBuffer,
  pages: ReturnType<typeof attachPageState>,
  shared: DestShared,
): PageSink {
  const inner = checkingSink(blocks, buffer);
  const note = (block: RamBlock, offset: number, count: number): void => {
    for (let page = offset / PAGE; page < offset / PAGE + count; page++) {
      if (pages.received[block.index]?.set(page)) Atomics.sub(shared.control, WORD.missing, 1);
    }
  };
  return {
    pages: (block, offset, at, count) => {
      inner.pages(block, offset, at, count);
      note(block, offset, count);
    },
    zeros: (block, offset, count) => {
      inner.zeros(block, offset, count);
      note(block, offset, count);
    },
  };
}

export function errors(run: () => Verdict): Verdict {
  try {
    return run();
  } catch (error) {
    if (error instanceof Finding) throw error;
    return judge(error);
  }
}

/** A preempt channel's records behind our own head, whose token is right. */
function withToken({ name, bytes, layout }: Material): Material {
  const isOurs = name.includes(".own");
  const all = new Uint8Array(
    Buffer.concat([channelHead("urgent", TOKEN), isOurs ? bytes.subarray(8) : bytes]),
  );
  const whole: Layout = isOurs ? layout : recordsLayout(all);
  return { name, bytes: all, layout: whole };
}

function runUrgent(bytes: Uint8Array, place: Place): Verdict {
  const path = join(place.directory, "urgent");
  writeFileSync(path, bytes);
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const blocks = blocksOf(place);
  const shared = new DestShared(createDestShared());
  Atomics.store(shared.control, WORD.urgentChosen, 1);
  Atomics.store(shared.control, WORD.urgentToken, TOKEN | 0);
  const poll = new PollSet();
  let warned = false;
  return errors(() => {
    const urgent = new UrgentChannel(
      {
        ...{ shared, blocks, listenFd: -1, allow: [], early: [fd], linkTimeoutMs: LINK_TIMEOUT_MS },
        openUrgent: (each) => {
          const channel = channelOver(each);
          return { channel, sink: checkingSink(blocks, channel.buffer) };
        },
        openPush: closeDescriptor,
        warn: () => (warned = true),
      },
      poll,
    );
    try {
      for (let turn = 0; turn < TURNS; turn++) {
        poll.wait(0);
        urgent.serve();
      }
    } finally {
      urgent.close();
    }
    return warned ? { refused: "TURNED_AWAY" } : "accepted";
  });
}

/** As much of a channel as fits into a socket. */
export function shortened(material: Material): Material {
  const { name, bytes, layout } = material;
  const last = layout.spans.findLast(({ end }) => end <= SOCKET_BYTES_MAX);
  const end = Math.min(bytes.length, last?.end ?? SOCKET_BYTES_MAX);
  const fields = layout.fields.filter((field) => field.at + field.bytes <= end);
  const spans = layout.spans.filter((span) => span.end <= end);
  return { name, bytes: bytes.slice(0, end), layout: { fields, spans } };
}

/** A socket in which bytes wait, closed at the other end. */
export function filledSocket(bytes: Uint8Array): number {
  const [fd, other] = makeSocketPair();
  for (const each of [fd, other]) setNonBlocking(each, true);
  fill(other, bytes);
  closeDescriptor(other);
  return fd;
}

function fill(fd: number, bytes: Uint8Array): void {
  const source = bytes.subarray(0, SOCKET_BYTES_MAX);
  const room = fillScratch;
  room.bytes.set(source);
  writeFrom(fd, room.address, source.length);
}
const fillScratch = mapScratch(SOCKET_BYTES_MAX);

/** Two channels, of which one is mutated; the main one flushes as often as it has SYNCs, and ends. */
function runMultifd(bytes: Uint8Array, place: Place): Verdict {
  const blocks = blocksOf(place);
  const { name } = place.material;
  const sibling = place.recordings.find((each) => {
    return each.name !== name && each.name.startsWith(name.slice(0, -1));
  });
  const shared = new DestShared(createDestShared());
  let flushes = 3;
  const patienceEnds = performance.now() + MAIN_PATIENCE_MS;
  // What never comes ends the patience of the main channel, whose thread gives up then.
  const control = Object.defineProperty({}, "control", {
    get: () => {
      if (performance.now() > patienceEnds) Atomics.store(shared.control, WORD.failed, 1);
      return shared.control;
    },
  });
  Object.setPrototypeOf(control, shared);
  const inTurn = Object.assign(Object.create(control) as DestShared, {
    multifdFlush: {
      wait: () => {
        if (flushes-- === 0) Atomics.store(shared.control, WORD.multifdEnded, 1);
        return true;
      },
    },
  });
  const endFd = makeEventDescriptor();
  const channels = [bytes, sibling === undefined ? bytes : shortened(sibling).bytes];
  const path = join(place.directory, "door");
  const door = openListener([{ family: "unix", path }]);
  return errors(() => {
    try {
      const { descriptors } = new MultifdReceiver({
        ...{ shared: inTurn, blocks, listenFd: door.fd, stopFd, endFd },
        linkTimeoutMs: LINK_TIMEOUT_MS,
        early: channels.map(filledSocket),
        isSource: () => true,
        openChannel: (fd) =>
          new Channel({ fd, stopFd, peer: "the source", bufferBytes: MULTIFD_BUFFER_BYTES }),
        openSink: (buffer) => checkingSink(blocks, buffer),
        warn: () => undefined,
      }).run();
      descriptors.forEach(closeDescriptor);
      return "accepted";
    } finally {
      closeDescriptor(door.fd);
      closeDescriptor(endFd);
    }
  });
}

/** The number of RAM's section: of the first part in the recording. */
function ramSectionOf({ bytes, layout }: Material): number {
  const id = layout.fields.find(({ what }) => what === "section.id");
  if (id === undefined) return 0;
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(id.at);
}

/** A destination of which half is there waits for its source, which comes back with these bytes. */
function runRecovery(bytes: Uint8Array, place: Place): Verdict {
  const blocks = blocksOf(place);
  const shared = new DestShared(createDestShared());
  const pages = attachPageState(createPageState(blocks), blocks);
  for (const { words } of pages.received) words.fill(0x5555_5555);
  const numbers = blocks.flatMap(({ index, length }) =>
    Array.from({ length: length / PAGE }, (_, page) => pages.received[index]?.test(page) === false),
  );
  const missing = numbers.filter(Boolean).length;
  Atomics.store(shared.control, WORD.missing, missing);
  Atomics.store(shared.control, WORD.fate, 1);
  shared.mainThreadLoadEvent.set();
  const path = join(place.directory, "door");
  const listener = openListener([{ family: "unix", path }]);
  const client = makeSocket("unix");
  startConnect(client, { family: "unix", path });
  fill(client, bytes);
  closeDescriptor(client);
  const nothing = join(place.directory, "nothing");
  writeFileSync(nothing, "");
  const fd = openSync(nothing, constants.O_RDONLY | constants.O_NONBLOCK);
  const channel = channelOver(fd);
  const returnPath = new ReturnPath(channel, shared.returnPathLock);
  const kept: number[] = [];
  const warnings = new LimitedWarnings(() => undefined);
  const entrance = { listenFd: listener.fd, stopFd, allow: [], linkTimeoutMs: LINK_TIMEOUT_MS };
  const link = {
    ...{ channel, returnPath, shared, blocks, pages, warnings, sourceIsOurs: true },
    door: Door.forRecovery({ ...entrance, warnings }),
    ...{ timeoutMs: RECOVERY_TIMEOUT_MS, linkTimeoutMs: LINK_TIMEOUT_MS },
    keep: (descriptors: readonly number[]): void => void kept.push(...descriptors),
    emit: () => undefined,
  };
  return errors(() => {
    try {
      runListen({
        ...{ channel, returnPath, shared, blocks, counts: undefined },
        ...{ map: AddressMap.ofBlocks([]), foreign: false, needs: 0 },
        sink: placingSink(blocks, channel.buffer, pages, shared),
        ramSectionId: ramSectionOf(place.material),
        ...{ resumes: false, linkTimeoutMs: LINK_TIMEOUT_MS, pushStopFd: -1 },
        recover: (failure: ChannelError) => recoverLink(link, failure),
        stopFaultThread: () => undefined,
      });
      const left = Atomics.load(shared.control, WORD.missing);
      if (left !== 0) throw new Finding(`it is whole, and ${left} pages are missing`);
      return "accepted";
    } finally {
      kept.forEach(closeDescriptor);
      closeSync(fd);
      closeDescriptor(listener.fd);
    }
  });
}

const isUrgent = (name: string): boolean => name.startsWith("urgent.");
const isMultifd = (name: string): boolean => name.startsWith("multifd.");
const isRecovery = (name: string): boolean => name.startsWith("recovery.");

export const CHANNEL_TARGETS: readonly Target[] = [
  { name: "urgent channel", share: 8, takes: isUrgent, prepare: withToken, run: runUrgent },
  { name: "multifd channels", share: 8, takes: isMultifd, prepare: shortened, run: runMultifd },
  { name: "recovery", share: 6, takes: isRecovery, prepare: shortened, run: runRecovery },
];
