/** The source: what a destination says to it on the return path, also when it recovers. */
import { closeSync, constants, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { makeEventDescriptor } from "../../../syscalls/descriptor.ts";
import { mapAnonymous, mapScratch } from "../../../syscalls/memory.ts";
import { Channel, SIDE_BYTES } from "../../../src/channel/channel.ts";
import type { RamBlock } from "../../../src/ram/block.ts";
import { oweDirty } from "../../../src/source/owed.ts";
import { RequestServer } from "../../../src/source/request-server.ts";
import { runReturnPath } from "../../../src/source/return-path.ts";
import { createSourceShared, hostPages, SourceShared, WORD } from "../../../src/source/shared.ts";
import { decodeStressState } from "../../../src/guests/stress/state-codec.ts";
import { continueStressSetup } from "../../../src/guests/stress/setup.ts";
import { StreamReader } from "../../../src/stream/reader.ts";
import { sourceContext } from "../../helpers/sending-guest.ts";
import { edgesLayout } from "../layouts.ts";
import { readModel } from "../model.ts";
import type { Material } from "../mutate.ts";
import { Finding, judge } from "../target.ts";
import type { Place, Target, Verdict } from "../target.ts";
import { blocksOf } from "./blocks.ts";

const stopFd = makeEventDescriptor();
const buffer = mapScratch(64 * 1024 + SIDE_BYTES);
const mapped = new Map<readonly RamBlock[], RamBlock[]>();
const nowhere = openSync("/dev/null", constants.O_WRONLY);

/** The same blocks in memory of this process. */
function inMemory(blocks: readonly RamBlock[]): RamBlock[] {
  const made =
    mapped.get(blocks) ??
    blocks.map((block) => ({ ...block, address: mapAnonymous(block.length).address }));
  mapped.set(blocks, made);
  return made;
}

function runBack(bytes: Uint8Array, place: Place): Verdict {
  const path = join(place.directory, "back");
  writeFileSync(path, bytes);
  const blocks = inMemory(blocksOf(place));
  const shared = new SourceShared(createSourceShared(blocks), blocks);
  const recovers = place.material.name.includes("recovery");
  Atomics.store(shared.control, WORD.serving, 1);
  Atomics.store(shared.control, WORD.ended, 1);
  Atomics.store(shared.control, WORD.bitmapsAwaited, recovers ? blocks.length : 0);
  Atomics.store(shared.control, WORD.resumeAwaited, recovers ? 1 : 0);
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const peer = "the destination";
  const position = { address: buffer.address, length: 64 * 1024, pos: 0, end: 0, base: 0 };
  const channel = new Channel({ fd, stopFd, peer, bufferBytes: 0 }, position);
  const sending = new Channel({ fd: nowhere, stopFd, peer, bufferBytes: 0 }, position);
  try {
    const context = sourceContext(blocks, shared, sending, stopFd);
    if (!recovers) {
      for (const bitmap of shared.dirty) bitmap.setAll();
      oweDirty(context);
    }
    const server = new RequestServer(context, blocks);
    runReturnPath({
      channel,
      shared,
      blocks,
      server,
      favour: { turn: () => undefined, beFirst: () => undefined },
    });
    checkOwed(shared, blocks);
    return "accepted";
  } catch (error) {
    checkOwed(shared, blocks);
    if (error instanceof Finding) throw error;
    return judge(error);
  } finally {
    closeSync(fd);
  }
}

/** No page is owed that the guest does not have. */
function checkOwed({ owed }: SourceShared, blocks: readonly RamBlock[]): void {
  for (const block of blocks) {
    const bitmap = owed[block.index];
    const beyond = bitmap?.nextSet(hostPages(block), bitmap.words.length * 32) ?? -1;
    if (beyond >= 0) throw new Finding(`page ${beyond} of ${block.name} is owed`);
  }
}

/** The body of the stress device in a package of ours. */
function stateOf({ name, bytes }: Material): Material {
  const device = readModel(bytes).package ?? new Uint8Array(0);
  const nameBytes = device[10] ?? 0;
  const body = device.slice(5 + 14 + nameBytes, device.length - 5 - 9 - 5);
  return { name, bytes: body, layout: edgesLayout(body, 256, 64) };
}

function runState(bytes: Uint8Array, place: Place): Verdict {
  const blocks = inMemory(blocksOf(place));
  try {
    const state = decodeStressState(new StreamReader(bytes, bytes.length), blocks);
    continueStressSetup(state, blocks);
    return "accepted";
  } catch (error) {
    return judge(error);
  }
}

export const SOURCE_TARGETS: readonly Target[] = [
  { name: "return path", share: 14, takes: (name) => name.startsWith("back."), run: runBack },
  {
    ...{ name: "stress device", share: 3, takes: (name: string) => name === "stream.own" },
    ...{ prepare: stateOf, run: runState },
  },
];
