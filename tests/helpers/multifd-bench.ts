/** The multifd thread of the destination, and a door that the channels of a source made by hand come through. */
import { expect } from "bun:test";
import { raiseEventDescriptor } from "../../syscalls/descriptor.ts";
import { openListener } from "../../src/channel/listen.ts";
import { MultifdBarrier } from "../../src/dest/multifd-barrier.ts";
import { createDestShared, DestShared } from "../../src/dest/shared.ts";
import { DEST } from "../../src/report/counters.ts";
import { writeBytes } from "../fixtures/descriptors.ts";
import type * as Fixture from "../fixtures/multifd-receiver.ts";
import { waitUntil } from "./deadline.ts";
import { Descriptors } from "./descriptors.ts";
import { startThread } from "./test-thread.ts";
import type { TestThread } from "./test-thread.ts";

export const PAGE = 4096;
/** Of each of its two blocks. */
export const PAGES = 16;
const FIXTURE = import.meta.resolve("../fixtures/multifd-receiver.ts");
const BLOCKS = ["pc.ram", "vga.vram"].map((name, index) => {
  return { index, name, length: PAGES * PAGE, pageSize: PAGE, address: 0 };
});

/** The thread, its shared memory, and a door that the test's connections come through. */
export class MultifdBench implements AsyncDisposable {
  readonly data = createDestShared();
  readonly shared = new DestShared(this.data);
  readonly barrier: MultifdBarrier;
  readonly descriptors = new Descriptors();
  readonly memory = BLOCKS.map(({ length }) => new SharedArrayBuffer(length));
  readonly #stopFd = this.descriptors.event();
  readonly #endFd = this.descriptors.event();
  readonly #door = openListener([{ family: "inet", host: "127.0.0.1", port: 0 }]);
  readonly #thread: TestThread<typeof Fixture>;
  #running: ReturnType<TestThread<typeof Fixture>["call"]> | undefined;

  private constructor(thread: TestThread<typeof Fixture>) {
    this.#thread = thread;
    this.descriptors.add(this.#door.fd);
    this.barrier = new MultifdBarrier(this.shared, () => raiseEventDescriptor(this.#endFd));
  }

  static async open(): Promise<MultifdBench> {
    return new MultifdBench(await startThread<typeof Fixture>(FIXTURE));
  }

  /** A connection that waits in the backlog until it is taken. */
  connect(bytes: Uint8Array = new Uint8Array()): number {
    const fd = this.descriptors.connect(this.#door.address);
    this.send(fd, bytes);
    return fd;
  }

  send(fd: number, bytes: Uint8Array): void {
    if (bytes.length > 0) expect(writeBytes(fd, bytes)).toBe(bytes.length);
  }

  start(options: { early?: number[]; foreign?: boolean } = {}): void {
    const { early = [], foreign = false } = options;
    const { data: shared, memory } = this;
    const [stopFd, endFd, listenFd] = [this.#stopFd, this.#endFd, this.#door.fd];
    const task = { shared, memory, blocks: BLOCKS, listenFd, early, stopFd, endFd, foreign };
    this.#running = this.#thread.call("receive", task);
    this.#running.catch(() => undefined);
  }

  /** What the thread left, with its warnings; rejects with its failure. */
  async result(): Promise<Awaited<ReturnType<typeof Fixture.receive>>> {
    const result = await this.#running;
    if (result === undefined) throw new Error("it was not started");
    for (const fd of result.descriptors) this.descriptors.add(fd);
    return result;
  }

  /** What the thread failed with. */
  async failure(): Promise<unknown> {
    return await this.#running?.then(
      () => "nothing",
      (error: unknown) => error,
    );
  }

  /** The first byte of a page. */
  at(index: number, block = 0): number {
    return new Uint8Array(this.memory[block] ?? new SharedArrayBuffer(0))[index * PAGE] ?? -1;
  }

  /** Waits until so many pages with data have come. */
  async normalPages(count: number): Promise<void> {
    const { counters } = this.shared;
    await waitUntil(() => counters.get(DEST.pagesMultifd) >= count, `${count} pages`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    raiseEventDescriptor(this.#stopFd);
    await this.#running?.catch(() => undefined);
    await this.#thread[Symbol.asyncDispose]();
    this.descriptors[Symbol.dispose]();
  }
}
