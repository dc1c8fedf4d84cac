/**
 * Guest memory as bytes. One ArrayBuffer covers at most a window of memory (a limit of the engine),
 * so larger blocks are seen through several; no page lies across two of them.
 */
import { viewMemory, WINDOW_BYTES_MAX } from "../../syscalls/memory.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";

const zeroPage = Buffer.alloc(TARGET_PAGE_SIZE);

/** The memory [address, address + length) of this process, seen as bytes. */
export class MemoryWindows {
  readonly address: number;
  readonly #windows: Buffer[] = [];
  /** The same memory as words: what a page begins with mostly says that it is not zero. */
  readonly #words: Int32Array[] = [];

  constructor(address: number, length: number) {
    this.address = address;
    for (let at = 0; at < length; at += WINDOW_BYTES_MAX) {
      const bytes = Math.min(WINDOW_BYTES_MAX, length - at);
      const window = viewMemory(address + at, bytes);
      this.#windows.push(Buffer.from(window));
      this.#words.push(new Int32Array(window, 0, Math.floor(bytes / 4)));
    }
  }

  /** The window that holds `offset`; the byte is at `offset % WINDOW_BYTES_MAX` in it. */
  window(offset: number): Buffer {
    const window = this.#windows[Math.floor(offset / WINDOW_BYTES_MAX)];
    if (window === undefined) throw new RangeError(`offset ${offset} is outside of the memory`);
    return window;
  }

  /**
   * Whether the target page at `offset` holds only zeros. Reads it, so it may fault. The compare
   * is memcmp: it ends at the first byte that differs. Where that is in the first word, no call is
   * spent on it.
   */
  isZeroPage(offset: number): boolean {
    const at = offset % WINDOW_BYTES_MAX;
    if (this.#words[Math.floor(offset / WINDOW_BYTES_MAX)]?.[at / 4] !== 0) return false;
    const end = Math.min(at + TARGET_PAGE_SIZE, this.window(offset).length);
    return this.window(offset).compare(zeroPage, 0, end - at, at, end) === 0;
  }

  /** Copies the target page at `offset` to `target[at, at + 4096)`, without an allocation. */
  readPage(offset: number, target: Uint8Array, at: number): void {
    const from = offset % WINDOW_BYTES_MAX;
    this.window(offset).copy(target, at, from, from + TARGET_PAGE_SIZE);
  }

  /** Copies bytes to `offset`; the range may span windows. */
  write(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const window = this.window(offset + done);
      const at = (offset + done) % WINDOW_BYTES_MAX;
      const part = Math.min(bytes.length - done, window.length - at);
      window.set(bytes.subarray(done, done + part), at);
      done += part;
    }
  }

  /** Writes zeros to [offset, offset + length). */
  clear(offset: number, length: number): void {
    for (let done = 0; done < length;) {
      const window = this.window(offset + done);
      const at = (offset + done) % WINDOW_BYTES_MAX;
      const part = Math.min(length - done, window.length - at);
      window.fill(0, at, at + part);
      done += part;
    }
  }
}
