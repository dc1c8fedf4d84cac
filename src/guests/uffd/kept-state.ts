/**
 * All that another process needs in order to go on filling a VMM's memory, in a file in memory that a
 * keeper has beside the userfaultfd: what the VMM handed over, the source's RAM blocks, and, as they
 * are at each moment, which pages are in place or were discarded, where memory lies, and the events
 * that were read. Nothing is copied into it: this is where the threads of `dest` have it. So what is
 * mapped of it stays mapped for as long as the process lives.
 *
 *     page 0   header: magic, version, stage, lengths, whether there are pages and of which guest
 *     page 1   the buffer that events of the userfaultfd are read into
 *     page 2   JSON: the VMM's process and its regions
 *     behind   JSON: the RAM blocks; the AddressMap; per block its received and its removed pages
 */
import { closeSync, openSync } from "node:fs";
import { tryLock } from "../../../syscalls/flock.ts";
import { growMemoryFile, makeMemoryFile, mapFile, sealedLength } from "../../../syscalls/memfd.ts";
import { BASE_PAGE_BYTES, viewMemory } from "../../../syscalls/memory.ts";
import { EVENT_BUFFER_BYTES } from "../../../syscalls/userfaultfd.ts";
import { requireSameBlocks } from "../../dest/begun-memory.ts";
import { coverOnly } from "../../dest/foreign-memory.ts";
import type { KeptPages, StreamFacts } from "../../dest/guest.ts";
import { AddressMap } from "../../ram/address-map.ts";
import { bitmapBytes, PageBitmap } from "../../ram/bitmap.ts";
import type { RamBlock } from "../../ram/block.ts";
import { targetPages } from "../../ram/block.ts";
import type { MappedBytes } from "../../ram/shared-bytes.ts";
import { IDENTITY_BYTES, SAME_FILES } from "../../stream/identity.ts";
import type { GuestIdentity } from "../../stream/identity.ts";
import { PostcopyError } from "../../util/errors.ts";
import type { Region } from "./handover.ts";
import { KEPT_STATE_VERSION, parseBlocks, parseVmm } from "./kept-text.ts";
import type { KeptBlock } from "./kept-text.ts";
import { placeRegions } from "./regions.ts";

/** How long a process that was killed may take to be gone, and how often that is looked at. */
const CLAIM_LIMIT_MS = 3000;
const CLAIM_PAUSE_MS = 10;

const MAGIC = "postcopy state\n";
/** Fields of the header, as 32-bit words. */
const FIELD = {
  version: 4,
  stage: 5,
  ramSectionId: 6,
  sourceIsOurs: 7,
  vmmTextBytes: 8,
  blocksTextBytes: 9,
  bound: 10,
} as const;
/** Which guest it is (GuestIdentity), where that is BOUND.named. */
const IDENTITY_AT = 64;
const EVENTS_AT = BASE_PAGE_BYTES;
const VMM_TEXT_AT = 2 * BASE_PAGE_BYTES;

/** How far it has come. Each is written when all that it promises is there. */
const STAGE = {
  /** The VMM has handed over. */
  handedOver: 0,
  /** The RAM blocks are known, and pages may have been placed and discarded. */
  prepared: 1,
  /** LISTEN was passed: what is missing is all that is to come. */
  takenOver: 2,
} as const;

/** Whether pages of a guest may have been placed. It is written before any is, and behind the identity. */
const BOUND = {
  no: 0,
  /** Of one that nobody has named. */
  unnamed: 1,
  named: 2,
} as const;

/** The state is not what a process of this program leaves. */
function damaged(what: string): PostcopyError {
  return new PostcopyError(
    "BAD_KEPT_STATE",
    `What was kept of the VMM cannot be gone on with: ${what}`,
  );
}

function otherGuest(known: GuestIdentity | undefined): PostcopyError {
  const what =
    known === undefined
      ? "The VMM has pages of a guest of which it is not known whether it is the one of these files"
      : "The VMM has pages of another guest than the one of these files";
  return new PostcopyError("OTHER_GUEST", what, {
    hint: `go on with the same guest: --from its files, or --listen for a source that has it; ${SAME_FILES}`,
  });
}

export class KeptState {
  readonly fd: number;
  /** The VMM's process, for people: the keeper has a descriptor of it. */
  readonly pid: number;
  readonly regions: readonly Region[];
  readonly #header: Int32Array;
  readonly #eventsAt: number;
  /** Where what is behind the first text begins in the file. */
  readonly #restAt: number;

  /** Maps the first part of the file. @throws PostcopyError BAD_KEPT_STATE. */
  constructor(fd: number) {
    this.fd = fd;
    const length = sealedLength(fd);
    if (length === undefined || length <= VMM_TEXT_AT) throw damaged("it is no such file");
    const { address } = mapFile(fd, VMM_TEXT_AT, 0);
    this.#header = new Int32Array(viewMemory(address, BASE_PAGE_BYTES));
    this.#eventsAt = address + EVENTS_AT;
    const magic = new TextDecoder().decode(new Uint8Array(this.#header.buffer, 0, MAGIC.length));
    if (magic !== MAGIC) throw damaged("it does not begin as one");
    const version = this.#header[FIELD.version];
    if (version !== KEPT_STATE_VERSION) {
      throw damaged(`it has version ${version}, and this program writes ${KEPT_STATE_VERSION}`);
    }
    const textBytes = this.#field(FIELD.vmmTextBytes);
    this.#restAt = VMM_TEXT_AT + wholePages(textBytes);
    if (textBytes <= 0 || this.#restAt > length) throw damaged("it is cut off");
    const { pid, regions } = parseVmm(readText(fd, VMM_TEXT_AT, textBytes), damaged);
    this.pid = pid;
    this.regions = regions;
  }

  /** Begins one for a VMM that has handed its memory over. */
  static begin(pid: number, regions: readonly Region[]): KeptState {
    const text = new TextEncoder().encode(JSON.stringify({ pid, regions }));
    const length = VMM_TEXT_AT + wholePages(text.length);
    const fd = makeMemoryFile("postcopy-state", length);
    const { address } = mapFile(fd, length, 0);
    const bytes = new Uint8Array(viewMemory(address, length));
    bytes.set(new TextEncoder().encode(MAGIC));
    bytes.set(text, VMM_TEXT_AT);
    const header = new Int32Array(bytes.buffer, 0, BASE_PAGE_BYTES / 4);
    header[FIELD.version] = KEPT_STATE_VERSION;
    header[FIELD.vmmTextBytes] = text.length;
    return new KeptState(fd);
  }

  /**
   * Has this process be the only one that is at it, until its last thread has ended: one that was
   * killed may still be in the middle of a system call.
   * @throws PostcopyError STILL_FILLED where another one is at it after `limitMs`.
   */
  async claim(limitMs = CLAIM_LIMIT_MS): Promise<void> {
    // A lock belongs to an opening, and the descriptor that is kept is the same one everywhere.
    const own = openSync(`/proc/self/fd/${this.fd}`, "r+");
    const deadline = performance.now() + limitMs;
    while (!tryLock(own)) {
      if (performance.now() >= deadline) {
        closeSync(own);
        throw new PostcopyError("STILL_FILLED", "Another dest is still filling the VMM's memory", {
          hint: "--resume goes on where one was killed",
        });
      }
      await Bun.sleep(CLAIM_PAUSE_MS);
    }
  }

  /**
   * Files of a guest are about to fill it.
   * @throws PostcopyError OTHER_GUEST where another process may have placed pages of another one.
   */
  requireGuest(identity: GuestIdentity): void {
    if (this.#field(FIELD.bound) === BOUND.no || identity === this.identity) return;
    throw otherGuest(this.identity);
  }

  /** Which guest has pages there; undefined where nobody said, or there are none. */
  get identity(): GuestIdentity | undefined {
    if (this.#field(FIELD.bound) !== BOUND.named) return undefined;
    return Buffer.from(this.#identityBytes).toString("hex");
  }

  /**
   * Its pages are this guest's, before any of them is placed; undefined: nobody says whose. What it was
   * bound to before it stays bound to.
   */
  bind(identity: GuestIdentity | undefined): void {
    if (this.#field(FIELD.bound) === BOUND.named) return;
    if (identity !== undefined) this.#identityBytes.set(Buffer.from(identity, "hex"));
    const bound = identity === undefined ? BOUND.unnamed : BOUND.named;
    Atomics.store(this.#header, FIELD.bound, bound);
  }

  get #identityBytes(): Uint8Array {
    return new Uint8Array(this.#header.buffer, IDENTITY_AT, IDENTITY_BYTES);
  }

  #field(field: number): number {
    return Atomics.load(this.#header, field);
  }

  /** Another process passed LISTEN: what is missing comes in a recovery. */
  get isTakenOver(): boolean {
    return this.#field(FIELD.stage) === STAGE.takenOver;
  }

  /**
   * The source's blocks are known: makes room for their pages. Another process may have done it before
   * and placed pages then, which are sent again and found there; what was discarded since is not
   * forgotten.
   * @throws StreamError OTHER_BLOCKS where it had other ones, or where regions do not fit.
   */
  prepare(blocks: readonly RamBlock[]): KeptPages {
    if (this.#field(FIELD.stage) !== STAGE.handedOver) return this.#prepareAgain(blocks);
    const pieces = placeRegions(this.regions, blocks);
    const kept: KeptBlock[] = blocks.map(({ name, length, pageSize }) => ({
      name,
      length,
      pageSize,
    }));
    const text = new TextEncoder().encode(JSON.stringify(kept));
    const textRoom = wholePages(text.length);
    const length = textRoom + this.#pagesBytes(blocks);
    growMemoryFile(this.fd, this.#restAt + length);
    const { address } = mapFile(this.fd, length, this.#restAt);
    new Uint8Array(viewMemory(address, textRoom)).set(text);
    const pages = this.#layOut(blocks, address + textRoom);
    coverOnly(AddressMap.of(pieces, pages.map), pages.received, pages.removed, blocks);
    this.#header[FIELD.blocksTextBytes] = text.length;
    Atomics.store(this.#header, FIELD.stage, STAGE.prepared);
    return { ...pages, again: false };
  }

  #prepareAgain(blocks: readonly RamBlock[]): KeptPages {
    const { blocks: before, ...pages } = this.reopen();
    requireSameBlocks(before, blocks);
    // They follow from the VMM's, which are kept as well.
    if (before.some(({ pageSize }, index) => pageSize !== blocks[index]?.pageSize)) {
      throw damaged("its pages have other sizes than the VMM's");
    }
    for (const [index, block] of blocks.entries()) {
      const [received, removed] = [pages.received[index], pages.removed[index]];
      const discarded = new PageBitmap(targetPages(block), removed);
      new PageBitmap(targetPages(block), received).bytes.set(discarded.bytes);
    }
    return pages;
  }

  /** What another process left, of blocks that were known by then. @throws PostcopyError. */
  reopen(): KeptPages & { blocks: RamBlock[] } {
    const textBytes = this.#field(FIELD.blocksTextBytes);
    const length = sealedLength(this.fd) ?? 0;
    const textRoom = wholePages(textBytes);
    if (textBytes <= 0 || this.#restAt + textRoom > length) throw damaged("its blocks are cut off");
    const blocks = parseBlocks(readText(this.fd, this.#restAt, textBytes), damaged);
    const bytes = this.#pagesBytes(blocks);
    if (this.#restAt + textRoom + bytes > length) throw damaged("its pages are cut off");
    const { address } = mapFile(this.fd, bytes, this.#restAt + textRoom);
    const pages = this.#layOut(blocks, address);
    new AddressMap(pages.map).check(blocks, damaged);
    return { blocks, ...pages, again: true };
  }

  /** LISTEN is passed. */
  takeOver({ ramSectionId, sourceIsOurs }: StreamFacts): void {
    this.#header[FIELD.ramSectionId] = ramSectionId;
    this.#header[FIELD.sourceIsOurs] = sourceIsOurs ? 1 : 0;
    Atomics.store(this.#header, FIELD.stage, STAGE.takenOver);
  }

  /** What `takeOver` was told. */
  get facts(): StreamFacts {
    const sourceIsOurs = this.#field(FIELD.sourceIsOurs) === 1;
    const ramSectionId = this.#field(FIELD.ramSectionId);
    return { ramSectionId, sourceIsOurs, identity: this.identity };
  }

  #pagesBytes(blocks: readonly RamBlock[]): number {
    const bits = blocks.reduce((sum, block) => sum + 2 * bitmapBytes(targetPages(block)), 0);
    return this.#mapBytes(blocks) + bits;
  }

  /** A region may lie in several blocks. */
  #mapBytes(blocks: readonly RamBlock[]): number {
    return AddressMap.bytes(this.regions.length + blocks.length);
  }

  #layOut(blocks: readonly RamBlock[], start: number): Omit<KeptPages, "again"> {
    let at = start;
    const next = (length: number): MappedBytes => {
      const part = { address: at, length };
      at += length;
      return part;
    };
    const map = next(this.#mapBytes(blocks));
    const received = blocks.map((block) => next(bitmapBytes(targetPages(block))));
    const removed = blocks.map((block) => next(bitmapBytes(targetPages(block))));
    return { map, received, removed, eventsAt: this.#eventsAt };
  }
}

function readText(fd: number, offset: number, length: number): string {
  using mapping = mapFile(fd, wholePages(length), offset);
  return new TextDecoder().decode(new Uint8Array(viewMemory(mapping.address, length)));
}

function wholePages(bytes: number): number {
  return Math.ceil(bytes / BASE_PAGE_BYTES) * BASE_PAGE_BYTES;
}

if (EVENT_BUFFER_BYTES > BASE_PAGE_BYTES) throw new Error("a page has no room for the events");
