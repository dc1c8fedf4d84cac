/**
 * Where the main channel and the multifd channels meet. A flush on the main channel stands for one
 * SYNC packet on each of the others: what was sent before it is stored on both sides of it before
 * anything is read that was sent after it (QEMU's `multifd_recv_sync_main`).
 */
import { DEST } from "../report/counters.ts";
import { StreamError } from "../util/errors.ts";
import { awaitThread } from "./context.ts";
import { WORD } from "./shared.ts";
import type { DestShared } from "./shared.ts";

/**
 * How long nothing may arrive on multifd channels while pages are missing that the source has sent:
 * it says on the main channel when it has. Buffers of many channels take longer on a slow link.
 */
const SETTLE_TIMEOUT_MS = 60_000;

/** The incoming thread's side; the other is in multifd.ts. */
export class MultifdBarrier {
  readonly #shared: DestShared;
  readonly #wake: () => void;
  readonly #settleTimeoutMs: number;
  #ended = false;

  /** `wake` ends a wait of the other side for more pages. */
  constructor(shared: DestShared, wake: () => void, settleTimeoutMs = SETTLE_TIMEOUT_MS) {
    this.#shared = shared;
    this.#wake = wake;
    this.#settleTimeoutMs = settleTimeoutMs;
  }

  /** The source says that it has sent all of a round: waits until all of it is stored. */
  flush(): void {
    if (this.#ended) return;
    const shared = this.#shared;
    const timeoutMs = this.#settleTimeoutMs;
    let deadline = performance.now() + timeoutMs;
    let bytes = shared.counters.get(DEST.bytesMultifd);
    shared.multifdFlush.post();
    awaitThread(shared, (ms) => {
      if (shared.multifdSettled.wait(ms)) return true;
      const now = shared.counters.get(DEST.bytesMultifd);
      if (now !== bytes) deadline = performance.now() + timeoutMs;
      bytes = now;
      if (performance.now() < deadline) return false;
      const what = `Pages on multifd channels did not come for ${timeoutMs / 1000} s`;
      throw new StreamError("PEER_SILENT", `${what} after the source had sent them`);
    });
  }

  /** No more pages come on those channels: postcopy begins, or the memory is complete. */
  end(): void {
    if (this.#ended) return;
    Atomics.store(this.#shared.control, WORD.multifdEnded, 1);
    this.#wake();
    this.flush();
    this.#ended = true;
  }
}
