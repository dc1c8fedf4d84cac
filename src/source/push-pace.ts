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
import { limitPace, limitUnsent, readTcpState } from "../../syscalls/socket.ts";
import type { TcpState } from "../../syscalls/socket.ts";
import { PaceChooser } from "./pace-chooser.ts";
import type { LinkLook } from "./pace-chooser.ts";

/** Time between two looks at the connection, in milliseconds. */
const LOOK_MS = 50;
/** So many looks without a request, and the push may take everything. */
const CALM_LOOKS = 20;
/** Bytes of the push that may be unsent in the socket meanwhile. */
const UNSENT_BYTES_MAX = 128 * 1024;

/** Keeps the socket of the push at its pace; does nothing where that is not TCP. */
export class PushPace {
  readonly #channel: Channel;
  readonly #limitsUnsent: boolean;
  readonly #clock: () => number;
  #chooser = new PaceChooser();
  #state: TcpState | undefined;
  #lookedAt: number;
  /** What the channel had waited by then. */
  #waitedMs = 0;
  #requests = 0;
  /** Looks since the last one that saw a request. */
  #calm = CALM_LOOKS;

  /**
   * `limitsUnsent`: little may be unsent in the socket while pages are requested. `clock` is in
   * milliseconds.
   */
  constructor(channel: Channel, limitsUnsent: boolean, clock = () => performance.now()) {
    this.#channel = channel;
    this.#limitsUnsent = limitsUnsent;
    this.#clock = clock;
    this.#lookedAt = clock();
    this.#state = readTcpState(channel.fd);
  }

  /** To be called between two chunks; `requests` is how many have been received in all. */
  keep(requests: number): void {
    const before = this.#state;
    const now = this.#clock();
    const wasCalm = this.#calm >= CALM_LOOKS;
    // The first request is not waited out.
    const begins = wasCalm && requests > this.#requests;
    if (before === undefined || (now - this.#lookedAt < LOOK_MS && !begins)) return;
    const { fd, waitedMs } = this.#channel;
    const look = { ms: now - this.#lookedAt, waitedMs: waitedMs - this.#waitedMs };
    this.#calm = requests > this.#requests ? 0 : this.#calm + 1;
    this.#lookedAt = now;
    this.#waitedMs = waitedMs;
    this.#requests = requests;
    const state = readTcpState(fd);
    this.#state = state;
    if (begins) this.#begin();
    else if (this.#calm === CALM_LOOKS) this.#giveUp();
    else if (state !== undefined && this.#calm < CALM_LOOKS) {
      this.#choose({ ...look, ...state, ackedBytes: state.ackedBytes - before.ackedBytes });
    }
  }

  #begin(): void {
    if (this.#limitsUnsent) limitUnsent(this.#channel.fd, UNSENT_BYTES_MAX);
    this.#chooser = new PaceChooser();
  }

  #giveUp(): void {
    if (this.#limitsUnsent) limitUnsent(this.#channel.fd, 0);
    limitPace(this.#channel.fd, 0);
  }

  #choose(look: LinkLook): void {
    const chooser = this.#chooser;
    const { pace } = chooser;
    chooser.look(look);
    if (chooser.pace !== pace) limitPace(this.#channel.fd, chooser.pace);
  }
}
