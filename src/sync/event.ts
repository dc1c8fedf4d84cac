/** A flag that threads wait for and that stays set, as QEMU's QemuEvent (`qemu_event_set`). */
import { waitWhile } from "./park.ts";

const FLAG = 0;

export class SharedEvent {
  /** Shared with other threads by message; each makes a SharedEvent of its own over it. */
  readonly shared: SharedArrayBuffer;
  readonly #words: Int32Array<SharedArrayBuffer>;

  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(4)) {
    this.shared = shared;
    this.#words = new Int32Array(shared);
  }

  /** Sets the flag and wakes everybody who waits for it. */
  set(): void {
    Atomics.store(this.#words, FLAG, 1);
    Atomics.notify(this.#words, FLAG);
  }

  /** Takes the flag back; while nobody waits for it. */
  clear(): void {
    Atomics.store(this.#words, FLAG, 0);
  }

  get isSet(): boolean {
    return Atomics.load(this.#words, FLAG) === 1;
  }

  /** Waits for the flag. Returns false when `timeoutMs` milliseconds passed without it. */
  wait(timeoutMs = Infinity): boolean {
    const deadline = performance.now() + timeoutMs;
    while (!this.isSet) {
      const left = deadline - performance.now();
      if (left <= 0) return false;
      waitWhile(this.#words, FLAG, 0, left);
    }
    return true;
  }
}
