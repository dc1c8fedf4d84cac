/**
 * What the push leaves free for requested pages, while pages are requested: both of what lies before
 * such a page, whatever channel it goes on.
 *
 * - In the network. TCP by itself sends until a queue is full somewhere on the way, and all of that
 *   queue is before the page. So the push is paced to just below what the network carries.
 * - In the socket. A page that was pushed, and is not sent yet, comes no sooner because it is asked
 *   for, unless the peer takes it twice. So little is kept unsent for a peer that does not.
 */
import type { Channel } from "../channel/channel.ts";
import { UNSENT_BYTES_MAX } from "../channel/tune.ts";
import { limitPace, limitUnsent, readTcpState } from "../../syscalls/socket.ts";
import type { TcpState } from "../../syscalls/socket.ts";
import { PaceChooser } from "./pace-chooser.ts";
import type { LinkLook } from "./pace-chooser.ts";

/** Time between two looks at the connection, in milliseconds. */
const LOOK_MS = 50;
/**
 * A look is at what went on for no longer than this: what a chunk that was blocked for seconds says of a
 * rate is not what the network carries, and a pace is not looked at again until the next chunk is sent.
 */
const LOOK_MS_MAX = 4 * LOOK_MS;
/** So many looks without a request, and the push may take everything. */
const CALM_LOOKS = 20;

/** What is asked of the socket, and told to it. */
export interface PacedSocket {
  readTcpState: typeof readTcpState;
  limitPace: typeof limitPace;
  limitUnsent: typeof limitUnsent;
}

/** Keeps the socket of the push at its pace; does nothing where that is not TCP. */
export class PushPace {
  readonly #channel: Channel;
  readonly #limitsUnsent: boolean;
  readonly #clock: () => number;
  readonly #socket: PacedSocket;
  #chooser = new PaceChooser();
  #state: TcpState | undefined;
  #lookedAt: number;
  /** What the channel had waited by then. */
  #waitedMs = 0;
  #requests = 0;
  /** Looks since the last one that saw a request. */
  #calm = CALM_LOOKS;
  /** What the channel had written after the chunk before, and the most that a chunk was. */
  #written: number;
  #chunkBytes = 0;

  /**
   * `limitsUnsent`: little may be unsent in the socket while pages are requested. `clock` is in
   * milliseconds.
   */
  constructor(
    channel: Channel,
    limitsUnsent: boolean,
    clock = () => performance.now(),
    socket: PacedSocket = { readTcpState, limitPace, limitUnsent },
  ) {
    this.#channel = channel;
    this.#limitsUnsent = limitsUnsent;
    this.#clock = clock;
    this.#socket = socket;
    this.#lookedAt = clock();
    this.#written = channel.bytesWritten;
    this.#state = socket.readTcpState(channel.fd);
  }

  /** To be called between two chunks; `requests` is how many have been received in all. */
  keep(requests: number): void {
    const before = this.#state;
    if (before === undefined) return;
    const { fd, waitedMs, bytesWritten } = this.#channel;
    this.#chunkBytes = Math.max(this.#chunkBytes, bytesWritten - this.#written);
    this.#written = bytesWritten;
    const now = this.#clock();
    // The first request is not waited out.
    const begins = this.#calm >= CALM_LOOKS && requests > this.#requests;
    if (now - this.#lookedAt < LOOK_MS && !begins) return;
    const look = { ms: now - this.#lookedAt, waitedMs: waitedMs - this.#waitedMs };
    this.#lookedAt = now;
    this.#waitedMs = waitedMs;
    const state = this.#socket.readTcpState(fd);
    this.#state = state;
    if (state === undefined) return this.end();
    const wasCalm = this.#calm >= CALM_LOOKS;
    this.#calm = requests > this.#requests ? 0 : this.#calm + 1;
    this.#requests = requests;
    if (begins) this.#begin();
    else if (!wasCalm) {
      if (this.#calm >= CALM_LOOKS) this.#giveUp();
      else this.#choose({ ...look, ...state, ackedBytes: state.ackedBytes - before.ackedBytes });
    }
  }

  /** The push is over, or cannot be looked at any more: whatever comes next is not limited. */
  end(): void {
    if (this.#calm < CALM_LOOKS) this.#giveUp();
    this.#calm = CALM_LOOKS;
  }

  #begin(): void {
    if (this.#limitsUnsent) this.#socket.limitUnsent(this.#channel.fd, UNSENT_BYTES_MAX);
    this.#chooser = new PaceChooser();
  }

  #giveUp(): void {
    if (this.#limitsUnsent) this.#socket.limitUnsent(this.#channel.fd, 0);
    this.#startAnew();
  }

  #choose(look: LinkLook): void {
    const chooser = this.#chooser;
    const { pace } = chooser;
    chooser.look(look);
    const chunkMs = chooser.pace === 0 ? 0 : (this.#chunkBytes / chooser.pace) * 1000;
    if (Math.max(look.ms, chunkMs) > LOOK_MS_MAX) this.#startAnew(pace);
    else if (chooser.pace !== pace) this.#socket.limitPace(this.#channel.fd, chooser.pace);
  }

  /** Without a pace; `pace` is the one in force. */
  #startAnew(pace = this.#chooser.pace): void {
    if (pace > 0) this.#socket.limitPace(this.#channel.fd, 0);
    this.#chooser = new PaceChooser();
  }
}
