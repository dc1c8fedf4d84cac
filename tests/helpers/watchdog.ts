/**
 * A stop descriptor that is raised when a test takes too long. Bun cannot interrupt a test that
 * blocks its own thread; what is tested here can be, as all of it watches a stop descriptor.
 */
import { closeDescriptor, makeEventDescriptor } from "../../syscalls/descriptor.ts";
import { SharedEvent } from "../../src/sync/event.ts";
import { startThread } from "./test-thread.ts";
import type { TestThread } from "./test-thread.ts";
import type * as DescriptorsFixture from "../fixtures/descriptors.ts";

type Fixture = typeof DescriptorsFixture;

const FIXTURE = import.meta.resolve("../fixtures/descriptors.ts");
const LIMIT_MS = 8_000;

export class Watchdog implements AsyncDisposable {
  readonly stopFd = makeEventDescriptor();
  readonly #over = new SharedEvent();
  readonly #thread: TestThread<Fixture>;
  readonly #watching: Promise<boolean>;

  constructor(thread: TestThread<Fixture>) {
    this.#thread = thread;
    this.#watching = thread.call("raiseUnless", this.#over.shared, this.stopFd, LIMIT_MS);
  }

  /** Fails if the limit was reached. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.set();
    const raised = await this.#watching;
    await this.#thread[Symbol.asyncDispose]();
    closeDescriptor(this.stopFd);
    if (raised) throw new Error(`the test had to be stopped after ${LIMIT_MS} ms`);
  }
}

export async function startWatchdog(): Promise<Watchdog> {
  return new Watchdog(await startThread<Fixture>(FIXTURE));
}
