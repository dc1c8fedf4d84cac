/**
 * The destination, from the first byte to the last: the incoming loader, and at LISTEN the listen
 * loop, one after the other in this thread. Two guests: one that is kept in files, and one in memory
 * that a userfaultfd guards. Nothing faults, so no fault thread is needed.
 */
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { closeDescriptor, makeEventDescriptor } from "../../../syscalls/descriptor.ts";
import { Mapping, mapScratch, scratchAt } from "../../../syscalls/memory.ts";
import { Channel, SIDE_BYTES } from "../../../src/channel/channel.ts";
import type { GuestMemory as AnnouncedMemory } from "../../../src/dest/context.ts";
import type { DestGuest, PageSink } from "../../../src/dest/guest.ts";
import { IncomingLoader } from "../../../src/dest/incoming.ts";
import { runListen } from "../../../src/dest/listen.ts";
import { Placer } from "../../../src/dest/placer.ts";
import type { ReturnPath } from "../../../src/dest/return-path.ts";
import { attachPageState, createDestShared, DestShared, WORD } from "../../../src/dest/shared.ts";
import type { PageState } from "../../../src/dest/shared.ts";
import { SnapshotDestGuest } from "../../../src/guests/snapshot/dest-guest.ts";
import { isSnapshotFile } from "../../../src/guests/snapshot/layout.ts";
import { StoreSink } from "../../../src/guests/snapshot/store-sink.ts";
import type { StoreData } from "../../../src/guests/snapshot/store-sink.ts";
import { mapBlocks } from "../../../src/guests/stress/memory.ts";
import { AddressMap } from "../../../src/ram/address-map.ts";
import type { RamBlock } from "../../../src/ram/block.ts";
import { FEATURES_OURS } from "../../../src/stream/hello.ts";
import { ModelError } from "../layout.ts";
import { readModel } from "../model.ts";
import type { ModelGuest } from "../model.ts";
import type { ModelBlock, Repeats } from "../model-memory.ts";
import { Finding, judge, same } from "../target.ts";
import type { Place, Target, Verdict } from "../target.ts";

const PAGE = 4096;
const ZEROS = new Uint8Array(PAGE);
/** Small enough that every stream is read in many pieces. */
/** As much as a compressed run may take, and some. */
const BUFFER_BYTES = 512 * 1024;
/** Guests whose every page is looked at; of larger ones, those that the stream has. */
const COMPARED_BYTES_MAX = 64 * 1024 * 1024;
const LINK_TIMEOUT_MS = 1000;

const buffer = mapScratch(BUFFER_BYTES + SIDE_BYTES);
const stopFd = makeEventDescriptor();

/** A guest that arrives, and its memory when it has. */
interface Arriving {
  guest: DestGuest;
  sink: (shared: DestShared, pages: PageState, memory: AnnouncedMemory) => PageSink;
  /** Looks that what is there is what the model says. */
  compare: (model: ModelGuest) => void;
  close: () => void;
}

/** Receives `bytes` as a stream that the source closes behind its last byte. */
function receive(bytes: Uint8Array, place: Pick<Place, "directory">, arriving: Arriving): Verdict {
  const path = join(place.directory, "stream");
  writeFileSync(path, bytes);
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const shared = new DestShared(createDestShared());
  try {
    const completedIn = load(fd, shared, arriving);
    const model = modelOf(bytes, arriving.guest.memory === "userfault" ? "first" : "last");
    if (model.ending !== completedIn) throw new Finding(`it completed in ${completedIn}`);
    arriving.compare(model);
    return "accepted";
  } catch (error) {
    if (error instanceof Finding) throw error;
    return judge(error);
  } finally {
    closeSync(fd);
    const userfaultFd = Atomics.load(shared.control, WORD.userfaultFd);
    // The listen thread closes it when all is in place; then its number is forgotten as well.
    if (userfaultFd >= 0 && !shared.listenDone.wait(0)) closeDescriptor(userfaultFd);
    arriving.close();
  }
}

function modelOf(bytes: Uint8Array, repeats: Repeats): ModelGuest {
  try {
    return readModel(bytes, undefined, undefined, repeats);
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    throw new Finding(`it was taken, and does not read: ${error.message}`);
  }
}

/** Nobody else sends anything: what does not come on the main channel does not come. */
function closeUrgent({ control }: DestShared): void {
  Atomics.store(control, WORD.urgentEnded, 1);
}

function load(fd: number, shared: DestShared, arriving: Arriving): "precopy" | "postcopy" {
  const peer = "the source";
  const from = { address: buffer.address, length: BUFFER_BYTES, pos: 0, end: 0, base: 0 };
  const channel = new Channel({ fd, stopFd, peer, bufferBytes: 0 }, from);
  const returnPath = { send: () => undefined } as unknown as ReturnPath;
  let memory: AnnouncedMemory | undefined;
  // Both threads are ready at once; the listen loop runs when the incoming thread waits for it.
  closeUrgent(shared);
  shared.faultThreadSem.post();
  shared.listenThreadSem.post();
  const done = shared.listenDone;
  const inTurn = Object.assign(Object.create(shared) as DestShared, {
    listenDone: {
      wait: () => {
        if (memory === undefined) throw new Error("LISTEN without a list of blocks");
        const pages = attachPageState(memory.pages, memory.blocks);
        const [address = 0, length = 0, pos = 0, end = 0, base = 0] = shared.position;
        const listening = new Channel(
          { fd, stopFd, peer, bufferBytes: 0 },
          { address, length, pos, end, base },
        );
        runListen({
          ...{ channel: listening, returnPath, shared, blocks: memory.blocks, counts: undefined },
          ...{ map: new AddressMap(memory.map), foreign: memory.foreign, needs: memory.needs },
          sink: arriving.sink(shared, pages, memory),
          ramSectionId: memory.ramSectionId,
          ...{ resumes: false, linkTimeoutMs: LINK_TIMEOUT_MS, recover: undefined },
          pushStopFd: -1,
          stopFaultThread: () => undefined,
        });
        done.post();
        return true;
      },
    },
  });
  const loader = new IncomingLoader({
    ...{ channel, returnPath, guest: arriving.guest, shared: inTurn, features: FEATURES_OURS },
    ...{ linkTimeoutMs: LINK_TIMEOUT_MS, othersMayCome: false, multifd: undefined },
    lockMemory: false,
    announceMemory: (announced) => (memory = announced),
    emit: () => undefined,
  });
  const outcome = loader.run();
  if (!("completedIn" in outcome)) throw new Finding("nobody was there, and nobody else may come");
  return outcome.completedIn;
}

/** A guest that is kept in a directory of the case. */
function keptGuest(place: Pick<Place, "directory">): Arriving {
  const directory = join(place.directory, "kept");
  const guest = new SnapshotDestGuest(directory, () => undefined);
  let finished = false;
  return {
    guest,
    sink: (shared, pages, memory) =>
      new StoreSink(memory.sinkData as StoreData, pages, buffer, shared.control),
    compare: (model) => {
      finished = true;
      compareKept(directory, model);
    },
    close: () => {
      const strange = readdirSync(place.directory).filter(
        (name) => name !== "kept" && name !== "stream",
      );
      const foreign = readdirSync(directory).filter((name) => !isSnapshotFile(name));
      if (!finished) closeFiles(guest);
      const names = [...strange, ...foreign];
      if (names.length > 0) throw new Finding(`it wrote where it must not: ${names.join(", ")}`);
    },
  };
}

/** What a failed guest has open ends with its process; this one goes on. */
function closeFiles(guest: SnapshotDestGuest): void {
  try {
    guest.sinkData().files.forEach((fd) => {
      try {
        closeSync(fd);
      } catch {
        // Closed already.
      }
    });
  } catch {
    // It has no blocks yet.
  }
}

function compareKept(directory: string, model: ModelGuest): void {
  const manifest = JSON.parse(readFileSync(join(directory, "manifest.json"), "utf8")) as {
    machineType: string;
    blocks: { name: string; length: number; pagesStored: number }[];
  };
  if (manifest.machineType !== model.machine) throw new Finding("another machine type was kept");
  compareLists(manifest.blocks, model.blocks);
  for (const [index, block] of model.blocks.entries()) {
    if (block.length <= COMPARED_BYTES_MAX) {
      compareBlock(readFileSync(join(directory, `ram-${index}.bin`)), block);
    }
    const stored = manifest.blocks[index]?.pagesStored;
    const held = [...block.pages.values()].filter((page) => !same(page, ZEROS));
    if (stored !== held.length) {
      throw new Finding(`${stored} pages of ${block.name} were kept, there are ${held.length}`);
    }
  }
  const kept = readFileSync(join(directory, "package.bin"));
  const expected = model.package ?? model.devices;
  const state = model.package === undefined ? kept.subarray(5, kept.length - 14) : kept;
  if (!same(state, expected)) throw new Finding("other device state was kept");
}

function compareLists(
  blocks: readonly { name: string; length: number }[],
  model: readonly ModelBlock[],
): void {
  const text = (list: typeof blocks): string =>
    list.map(({ name, length }) => `${name} of ${length}`).join();
  if (text(blocks) !== text(model)) throw new Finding(`other blocks: ${text(blocks)}`);
}

function compareBlock(memory: Uint8Array, block: ModelBlock): void {
  if (memory.length !== block.length) throw new Finding(`${block.name} has ${memory.length} bytes`);
  const expected = new Uint8Array(block.length);
  for (const [page, bytes] of block.pages) expected.set(bytes, page * PAGE);
  if (same(memory, expected)) return;
  const at = memory.findIndex((byte, i) => byte !== expected[i]);
  throw new Finding(`page ${Math.floor(at / PAGE)} of ${block.name} is not what was sent`);
}

/** A guest in memory of this process, whose device state stays as it came. */
function memoryGuest(): Arriving {
  let blocks: readonly RamBlock[] = [];
  let state: Uint8Array = new Uint8Array(0);
  const guest: DestGuest = {
    memory: "userfault",
    devices: { kind: "opaque", keep: (bytes) => (state = bytes) },
    configure: () => undefined,
    prepareMemory: (setup) => {
      const mapped = mapBlocks(setup);
      blocks = mapped;
      return mapped;
    },
    sinkData: () => undefined,
    run: () => undefined,
    finish: (commit) => commit(),
  };
  return {
    guest,
    sink: (shared, pages, memory) =>
      new Placer({
        ...{ map: new AddressMap(memory.map), foreign: memory.foreign },
        ...{ shared, pages, buffer, times: shared.listenTimes, urgent: false },
        drainEvents: () => {
          throw new Finding("an event of a guest that does nothing");
        },
      }),
    compare: (model) => {
      compareLists(blocks, model.blocks);
      for (const [index, block] of blocks.entries()) {
        const expected = model.blocks[index];
        if (expected === undefined || block.length > COMPARED_BYTES_MAX) continue;
        compareBlock(scratchAt(block.address, block.length).bytes, expected);
      }
      const expected = model.package ?? model.devices;
      const kept = model.package === undefined ? state.subarray(5, state.length - 14) : state;
      if (!same(kept, expected)) throw new Finding("other device state was kept");
    },
    close: () => {
      for (const { address, length } of blocks) new Mapping(address, length)[Symbol.dispose]();
    },
  };
}

/** Keeps a recording as a snapshot; the directory that it is in. */
export function keepStream(stream: Uint8Array, directory: string): string {
  const path = join(directory, "kept");
  mkdirSync(path);
  const verdict = receive(stream, { directory }, keptGuest({ directory }));
  if (verdict !== "accepted") throw new Error(`the recording was refused: ${verdict.refused}`);
  return path;
}

/** Whole streams whose pages all come on the main channel. */
function isWhole(name: string): boolean {
  return name.startsWith("stream.") && !/multifd|preempt/.test(name);
}

export const DEST_TARGETS: readonly Target[] = [
  {
    ...{ name: "dest, kept in files", share: 24, takes: isWhole },
    run: (bytes, place) => receive(bytes, place, keptGuest(place)),
  },
  {
    ...{ name: "dest, in memory", share: 24, takes: isWhole },
    run: (bytes, place) => receive(bytes, place, memoryGuest()),
  },
];
