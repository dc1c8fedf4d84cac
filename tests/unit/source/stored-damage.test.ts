/** A page of a kept guest that is not what was stored: in no way of sending it does it leave. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, openSync, readSync, writeSync } from "node:fs";
import { Channel } from "../../../src/channel/channel.ts";
import { openSnapshot } from "../../../src/guests/snapshot/open.ts";
import { SnapshotTable } from "../../../src/guests/snapshot/page-table.ts";
import { StoredSourceGuest } from "../../../src/guests/stored/source-guest.ts";
import { StreamTable } from "../../../src/guests/stream/page-table.ts";
import { inSideFile } from "../../../src/guests/stream/where.ts";
import { pushOwed } from "../../../src/source/postcopy.ts";
import { RequestServer } from "../../../src/source/request-server.ts";
import { RamWriter } from "../../../src/source/ram-writer.ts";
import { createSourceShared, SourceShared, WORD } from "../../../src/source/shared.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { filledPage, KeptGuest } from "../../helpers/kept-guest.ts";
import { sourceContext } from "../../helpers/sending-guest.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const PAGE = 4096;
const PAGES = 24;
/** The page that is damaged, and what is wrong in it. */
const BAD = 17;
const WRONG = Buffer.from("wrong and nowhere else");

let place: TemporaryDirectory;
beforeAll(() => {
  place = new TemporaryDirectory("leave");
  const setup = [{ name: "pc.ram", length: PAGES * PAGE, pageSize: PAGE }];
  const kept = new KeptGuest(place.path, setup);
  for (let page = 0; page < PAGES; page++) kept.store(kept.postcopy, 0, page, filledPage(page + 1));
  kept.finish();
  copyFileSync(place.file("ram-0.bin"), place.file("stream"));
  for (const name of ["ram-0.bin", "stream"]) {
    writeSync(openSync(place.file(name), "r+"), WRONG, 0, WRONG.length, BAD * PAGE + 100);
  }
});
afterAll(() => place[Symbol.asyncDispose]());

const KINDS = ["snapshot", "stream", "index"] as const;
type Kind = (typeof KINDS)[number];

/**
 * The guest in a snapshot; in a saved stream, where its pages lie in order in the file; and in the
 * index of one, where they lie in order as well, decoded.
 */
function storedGuest(kind: Kind): StoredSourceGuest {
  const snapshot = openSnapshot(place.path);
  if (kind === "snapshot") return new StoredSourceGuest(snapshot, new SnapshotTable(snapshot));
  const where = new Float64Array(new SharedArrayBuffer(8 * PAGES));
  for (let page = 0; page < PAGES; page++) {
    where[page] = kind === "index" ? inSideFile(page * PAGE) : page * PAGE;
  }
  const [descriptor, sideDescriptor] = ["stream", "ram-0.bin"].map((name) => {
    return openSync(place.file(name), "r");
  });
  const table = new StreamTable({
    ...{ ...snapshot, path: place.file("stream"), where: [where.buffer] },
    ...{ descriptor: descriptor ?? -1, sideDescriptor: sideDescriptor ?? -1 },
    identity: { size: 0, mtimeNs: "0", inode: "0", device: "0" },
  });
  return new StoredSourceGuest(snapshot, table);
}

/** Everything that the peer of a connection was sent so far. */
function sentTo(fd: number): Buffer {
  const bytes = Buffer.alloc(PAGES * PAGE * 2);
  try {
    return bytes.subarray(0, readSync(fd, bytes));
  } catch {
    return bytes.subarray(0, 0);
  }
}

/** Sends from a guest with all pages owed in one of the ways, until it fails; what got out. */
function send(guest: StoredSourceGuest, way: "push" | "request" | "urgent request") {
  using descriptors = new Descriptors();
  const [fd, peer] = descriptors.pair();
  const [urgentFd, urgentPeer] = descriptors.pair();
  const stopFd = descriptors.event();
  const blocks = [...guest.blocks];
  const shared = new SourceShared(createSourceShared(blocks), blocks);
  shared.owed[0]?.setAll();
  Atomics.store(shared.control, WORD.owed, PAGES);
  if (way === "urgent request") Atomics.store(shared.control, WORD.urgentFd, urgentFd);
  const channel = new Channel({ fd, stopFd, peer: "the destination", bufferBytes: 0 });
  const context = {
    ...sourceContext([], shared, channel, stopFd),
    ...{ guest, makeWriter: () => new RamWriter(guest.openPages()) },
  };
  const [block] = blocks;
  if (block === undefined) throw new Error("no block");
  let error: unknown;
  try {
    if (way === "push") pushOwed(context);
    else new RequestServer(context, blocks).serve(block, BAD * PAGE, PAGE);
  } catch (thrown) {
    error = thrown;
  }
  return { error, sent: Buffer.concat([sentTo(peer), sentTo(urgentPeer)]) };
}

/** What is said of where it lies. */
const named: Record<Kind, string> = {
  snapshot: `the page at ${BAD * PAGE} of ram-0.bin (pc.ram)`,
  stream: `The page at ${BAD * PAGE} of "pc.ram", at byte ${BAD * PAGE} of `,
  index: `/stream.postcopy-index, does not`,
};

describe.each(KINDS)("a damaged page (%s)", (kind) => {
  test.each(["push", "request", "urgent request"] as const)("does not leave by %s", (way) => {
    const { error, sent } = send(storedGuest(kind), way);
    const code = kind === "snapshot" ? "DAMAGED_SNAPSHOT" : "DAMAGED_FILE";
    expect(error).toMatchObject({ code });
    expect(String(error)).toContain(named[kind]);
    expect(String(error)).toContain("does not have its checksum");
    expect(sent.includes(WRONG)).toBe(false);
  });

  test("is never gathered from where it lies: only what was checked is copied", () => {
    const guest = storedGuest(kind);
    const writer = new RamWriter(guest.openPages());
    expect(writer.canGather).toBe(false);
    writer.copying = false;
    writer.begin(undefined);
    const [block] = guest.blocks;
    if (block === undefined) throw new Error("no block");
    expect(() => writer.page(block, BAD * PAGE)).toThrow("does not have its checksum");
  });
});
