/** Main's side of waiting for the end of a process that is not its child. */
import {
  closeDescriptor,
  makeEventDescriptor,
  raiseEventDescriptor,
} from "../../syscalls/descriptor.ts";
import type { WatchTask } from "./tasks.ts";
import { Thread } from "./thread.ts";

export class ProcessWatch {
  readonly #stopFd = makeEventDescriptor();
  readonly #thread = new Thread<WatchTask, never, boolean>("watch", () => {});
  readonly #over: Promise<boolean>;

  /** Watches the process of a pidfd, which stays open until `end` has resolved. */
  constructor(processFd: number) {
    this.#over = this.#thread.run({ processFd, stopFd: this.#stopFd });
  }

  /** Resolves when the process has ended; else never. Rejects when it cannot be watched. */
  get ended(): Promise<void> {
    return this.#over.then((ended) => (ended ? undefined : new Promise<never>(() => {})));
  }

  /** Nobody wants to know any more. */
  async end(): Promise<void> {
    raiseEventDescriptor(this.#stopFd);
    await Promise.allSettled([this.#over]);
    this.#thread.end();
    closeDescriptor(this.#stopFd);
  }
}
