/** A fault thread at work over the memory of an arriving guest; the test plays the source. */
import { raiseEventDescriptor } from "../../syscalls/descriptor.ts";
import { Channel } from "../../src/channel/channel.ts";
import { WORD } from "../../src/dest/shared.ts";
import { DEST } from "../../src/report/counters.ts";
import { channelHead } from "../../src/stream/further-channel.ts";
import { readReturnPathMessage } from "../../src/stream/return-path.ts";
import type { ReturnPathMessage } from "../../src/stream/return-path.ts";
import { ArrivingMemory } from "./arriving-memory.ts";
import type { ArrivingOptions } from "./arriving-memory.ts";
import { withDeadline } from "./deadline.ts";
import { Descriptors } from "./descriptors.ts";
import { startThread } from "./test-thread.ts";
import type { TestThread } from "./test-thread.ts";
import type * as GuestMemory from "../fixtures/guest-memory.ts";
import type * as PostcopyThreads from "../fixtures/postcopy-threads.ts";

const GUEST = import.meta.resolve("../fixtures/guest-memory.ts");
const POSTCOPY = import.meta.resolve("../fixtures/postcopy-threads.ts");

/** Longest time that the test waits for a request. */
const REQUEST_LIMIT_MS = 5_000;

/** The token of the urgent channel; the sign bit is set, as in half of all tokens. */
export const BENCH_TOKEN = 0xfedc_ba98;

interface FaultBenchOptions {
  listenFd?: number;
  early?: number[];
  chosen?: boolean;
  bound?: boolean;
  foreign?: boolean;
  spin?: SharedArrayBuffer;
}

export type Guest = TestThread<typeof GuestMemory>;

export class FaultBench implements AsyncDisposable {
  readonly arriving: ArrivingMemory;
  readonly descriptors = new Descriptors();
  /** The source's end of the main connection. */
  readonly main: Channel;
  readonly #destFd: number;
  readonly #stopFd: number;
  readonly #threads: AsyncDisposable[] = [];
  #running: Promise<string[]> | undefined;

  constructor(options: ArrivingOptions = {}) {
    this.arriving = new ArrivingMemory(options);
    const [destFd, sourceFd] = this.descriptors.pair();
    this.#destFd = destFd;
    this.#stopFd = this.descriptors.event();
    const peer = "the destination";
    const stopFd = this.descriptors.event();
    this.main = new Channel({ fd: sourceFd, stopFd, peer, bufferBytes: 4096 });
    this.main.timeoutMs = REQUEST_LIMIT_MS;
  }

  /** A thread that touches the guest's memory. */
  async guest(): Promise<Guest> {
    const thread = await startThread<typeof GuestMemory>(GUEST);
    this.#threads.push(thread);
    return thread;
  }

  /** Another thread of the destination, or of its source. */
  async helper(): Promise<TestThread<typeof PostcopyThreads>> {
    const thread = await startThread<typeof PostcopyThreads>(POSTCOPY);
    this.#threads.push(thread);
    return thread;
  }

  /**
   * Starts the fault thread; unless told otherwise, the source has chosen an urgent channel, and the guest
   * is bound to it.
   */
  async start(options: FaultBenchOptions = {}): Promise<void> {
    const thread = await this.helper();
    const { data, blocks, pageData, shared, map } = this.arriving;
    Atomics.store(shared.control, WORD.urgentChosen, options.chosen === false ? 0 : 1);
    Atomics.store(shared.control, WORD.urgentToken, BENCH_TOKEN);
    Atomics.store(shared.control, WORD.identityBound, options.bound === false ? 0 : 1);
    this.#running = thread.call("serveFaults", {
      shared: data,
      blocks,
      pages: pageData,
      map: map.shared,
      foreign: options.foreign ?? false,
      fd: this.#destFd,
      listenFd: options.listenFd ?? -1,
      early: options.early ?? [],
      stopFd: this.#stopFd,
      spin: options.spin,
    });
    // Whoever asks for the result sees its failure.
    this.#running.catch(() => undefined);
    if (!shared.faultThreadSem.wait(REQUEST_LIMIT_MS)) throw new Error("no fault thread");
  }

  /** An urgent connection that the fault thread has from the start: both ends; the head is sent. */
  urgentPair(): { early: number; channel: Channel } {
    const [destFd, sourceFd] = this.descriptors.pair();
    const stopFd = this.descriptors.event();
    const peer = "the destination";
    const channel = new Channel({ fd: sourceFd, stopFd, peer, bufferBytes: 4096 });
    channel.timeoutMs = REQUEST_LIMIT_MS;
    channel.write(channelHead("urgent", BENCH_TOKEN));
    // The fault thread closes what it was given.
    return { early: this.descriptors.release(destFd), channel };
  }

  /** The next message of the fault thread to the source. */
  request(): ReturnPathMessage {
    return readReturnPathMessage(this.main.reader);
  }

  /** Whether nothing was asked for that has not been looked at. */
  get noRequest(): boolean {
    return this.main.reader.available === 0 && this.main.tryRead() === 0;
  }

  /** What the fault thread counted. */
  count(counter: keyof typeof DEST): number {
    return this.arriving.shared.counters.get(DEST[counter]);
  }

  /** Waits for the fault thread to end by itself; its failure. */
  async failure(): Promise<unknown> {
    const ended = this.#running?.then(
      () => undefined,
      (error: unknown) => error,
    );
    return await withDeadline(ended ?? Promise.resolve(), "the end of the fault thread");
  }

  /** Ends the fault thread; its warnings, or its failure. */
  async stop(): Promise<string[]> {
    raiseEventDescriptor(this.#stopFd);
    const warnings = await this.#running;
    this.#running = undefined;
    return warnings ?? [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    raiseEventDescriptor(this.#stopFd);
    await this.#running?.catch(() => undefined);
    // Whoever waits in a fault goes on when the memory is given back.
    const { memory } = this.arriving;
    memory.userfault.unregister(memory.address, memory.pages * 4096);
    for (const thread of this.#threads) await thread[Symbol.asyncDispose]();
    this.descriptors[Symbol.dispose]();
    this.arriving[Symbol.dispose]();
  }
}
