/**
 * Two connections joined: what comes in at one goes out at the other, in both directions. Nothing is
 * read faster than it is written: of each direction no more waits here than one read has brought.
 */
import type { Socket, SocketHandler } from "bun";

/** How long one direction may stay open when the other has ended. */
const HALF_OPEN_LIMIT_MS = 30_000;

/** What hangs on every socket of a bridge. */
export interface SocketState {
  /** The other end, in words. */
  readonly peer: string;
  /** Once it is joined. */
  end: JointEnd | undefined;
  /** What came before: at most what one read has brought, as it is paused then. */
  readonly early: Uint8Array[];
  earlyEnd: boolean;
  closed: boolean;
}

export type BridgeSocket = Socket<SocketState>;

export function socketState(peer: string): SocketState {
  return { peer, end: undefined, early: [], earlyEnd: false, closed: false };
}

/** One of the two connections. */
interface JointEnd {
  readonly socket: BridgeSocket;
  readonly joint: Joint;
  /** Bytes that were read at the other end and are not written here yet, oldest first. */
  readonly waiting: Uint8Array[];
  /** It will send no more. */
  ended: boolean;
  /** It was told that no more comes. */
  finished: boolean;
  closed: boolean;
}

/** What every socket of a bridge does, joined or not yet. */
export const JOINT_HANDLERS = {
  data({ data }, bytes) {
    if (data.end === undefined) data.early.push(bytes);
    else data.end.joint.take(data.end, bytes);
  },
  drain({ data: { end } }) {
    end?.joint.flush(end);
  },
  end({ data }) {
    if (data.end === undefined) data.earlyEnd = true;
    else data.end.joint.takeEnd(data.end);
  },
  close({ data }, error) {
    data.closed = true;
    data.end?.joint.takeClose(data.end, error !== undefined);
  },
  error(socket) {
    socket.terminate();
  },
} satisfies SocketHandler<SocketState>;

export class Joint {
  readonly #ends: readonly [JointEnd, JointEnd];
  readonly #closed: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Joins two open connections; `closed` is called once, when both are closed. */
  constructor(one: BridgeSocket, other: BridgeSocket, closed: () => void) {
    this.#closed = closed;
    this.#ends = [this.#end(one), this.#end(other)];
    for (const end of this.#ends) end.socket.data.end = end;
    for (const end of this.#ends) {
      const { early, earlyEnd } = end.socket.data;
      for (const bytes of early.splice(0)) this.take(end, bytes);
      if (earlyEnd) this.takeEnd(end);
    }
    for (const end of this.#ends) this.flush(end);
  }

  #end(socket: BridgeSocket): JointEnd {
    return { socket, joint: this, waiting: [], ended: false, finished: false, closed: false };
  }

  #other(end: JointEnd): JointEnd {
    return end === this.#ends[0] ? this.#ends[1] : this.#ends[0];
  }

  /** `from` has read something. */
  take(from: JointEnd, bytes: Uint8Array): void {
    const to = this.#other(from);
    // Nobody is there any more to read it.
    if (to.closed || to.finished) return;
    to.waiting.push(bytes);
    this.flush(to);
    if (to.waiting.length > 0) from.socket.pause();
  }

  /** `to` takes bytes again. */
  flush(to: JointEnd): void {
    for (let first = to.waiting[0]; first !== undefined; first = to.waiting[0]) {
      const written = to.socket.write(first);
      // Its end is told by an event of its own.
      if (written < 0) return;
      if (written < first.length) {
        to.waiting[0] = first.subarray(written);
        return;
      }
      to.waiting.shift();
    }
    const from = this.#other(to);
    if (from.ended) this.#finish(to);
    else if (!from.closed) from.socket.resume();
  }

  /** `from` has sent all that it will. */
  takeEnd(from: JointEnd): void {
    from.ended = true;
    const to = this.#other(from);
    if (to.waiting.length === 0) this.#finish(to);
    this.#timer ??= setTimeout(() => this.reset(), HALF_OPEN_LIMIT_MS);
  }

  /** `from` is closed. Where it was cut off the other is too; else all that it sent goes out. */
  takeClose(from: JointEnd, failed: boolean): void {
    const to = this.#other(from);
    const cut = failed || !(from.ended || from.finished);
    from.closed = true;
    from.socket.data.end = undefined;
    from.waiting.length = 0;
    if (to.closed) this.#close();
    else if (cut) this.reset();
    else if (to.finished) to.socket.end();
    else this.takeEnd(from);
  }

  /** Says that no more comes. Where nobody is left to read for, the connection ends as well. */
  #finish(to: JointEnd): void {
    if (to.finished || to.closed) return;
    to.finished = true;
    const from = this.#other(to);
    const over = to.ended && from.finished;
    if (over || from.closed) to.socket.end();
    else to.socket.shutdown();
    if (over && !from.closed) from.socket.end();
  }

  /** Cuts both off: what is under way is lost, and both peers notice. */
  reset(): void {
    for (const end of this.#ends) if (!end.closed) end.socket.terminate();
  }

  #close(): void {
    clearTimeout(this.#timer);
    this.#closed();
  }
}
