/**
 * The return path at the destination: PONG, page requests, SHUT. Several threads write on it, each
 * through an object of its own, one at a time (QEMU's `rp_mutex`).
 */
import { mapScratch } from "../../syscalls/memory.ts";
import { GatherList } from "../../syscalls/io.ts";
import type { Channel } from "../channel/channel.ts";
import type { RamBlock } from "../ram/block.ts";
import {
  PAGE_REQUEST_BYTES_MAX,
  putPageRequest,
  writeReturnPathMessage,
} from "../stream/return-path.ts";
import type { ReturnPathMessage } from "../stream/return-path.ts";
import { StreamWriter } from "../stream/writer.ts";
import type { Mutex } from "../sync/mutex.ts";

/** Most page requests in one write. */
export const REQUESTS_PER_WRITE_MAX = 64;

export class ReturnPath {
  readonly #channel: Channel;
  readonly #lock: Mutex;
  readonly #scratch = mapScratch(REQUESTS_PER_WRITE_MAX * PAGE_REQUEST_BYTES_MAX);
  readonly #list = new GatherList(1);
  #used = 0;
  #block: RamBlock | undefined;

  constructor(channel: Channel, lock: Mutex) {
    this.#channel = channel;
    this.#lock = lock;
  }

  /** Sends one message. */
  send(message: ReturnPathMessage): void {
    const writer = new StreamWriter();
    writeReturnPathMessage(writer, message);
    this.#lock.lock();
    try {
      this.#channel.write(writer.bytes);
    } finally {
      this.#lock.unlock();
    }
  }

  /** Adds a request for one host page; `flushRequests` sends what was added. One thread only. */
  addRequest(block: RamBlock, offset: number): void {
    if (this.#used + PAGE_REQUEST_BYTES_MAX > this.#scratch.bytes.length) this.flushRequests();
    const { bytes, view } = this.#scratch;
    // The source remembers the block of the last request, so its name is needed once a write.
    const name = block === this.#block ? undefined : block.name;
    this.#used += putPageRequest(bytes, view, this.#used, name, offset, block.pageSize);
    this.#block = block;
  }

  /** Sends what was added, unless `held` says otherwise: then it is forgotten. */
  flushRequests(held: () => boolean = () => false): void {
    if (this.#used === 0) return;
    this.#list.clear();
    this.#list.add(this.#scratch.address, this.#used);
    this.#used = 0;
    // Another thread may ask for pages of another block in between.
    this.#block = undefined;
    this.#lock.lockUrgent();
    try {
      if (!held()) this.#channel.writeAll(this.#list);
    } finally {
      this.#lock.unlock();
    }
  }
}
