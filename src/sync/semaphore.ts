/** A counting semaphore between threads, as QEMU's qemu_sem_post and qemu_sem_wait. */
import { waitWhile } from "./park.ts";

const COUNT = 0;

export class Semaphore {
  /** Shared with other threads by message; each makes a Semaphore of its own over it. */
  readonly shared: SharedArrayBuffer;
  readonly #words: Int32Array<SharedArrayBuffer>;

  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(4)) {
    this.shared = shared;
    this.#words = new Int32Array(shared);
  }

  /** Lets one waiter through, now or later. */
  post(): void {
    Atomics.add(this.#words, COUNT, 1);
    Atomics.notify(this.#words, COUNT, 1);
  }

  /** Takes one unit. Returns false when none came within `timeoutMs` milliseconds. */
  wait(timeoutMs = Infinity): boolean {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const count = Atomics.load(this.#words, COUNT);
      if (count > 0) {
        if (Atomics.compareExchange(this.#words, COUNT, count, count - 1) === count) return true;
        continue;
      }
      const left = deadline - performance.now();
      if (left <= 0) return false;
      waitWhile(this.#words, COUNT, 0, left);
    }
  }
}
