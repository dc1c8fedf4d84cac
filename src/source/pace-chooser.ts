/**
 * The pace of the push at which no queue stands in the network. How long a packet waits on the way is
 * what the round trips of the push say, beside the shortest that was ever seen. Where they are long the
 * pace goes below what arrives; where they are short it grows until they are long again, which is how a
 * network that has become faster is noticed.
 */

/** What a packet may wait on the way before the push is slowed down, in µs ... */
const QUEUE_US = 500;
/** ... and this part of the shortest round trip: long ways have round trips that differ more. */
const QUEUE_SHARE = 1 / 8;
/** Without a pace it must wait so long in so many looks in a row: what begins is uneven. */
const QUEUED_LOOKS = 2;
/** Nor is the network in the way of who waits for his socket for less of the time. */
const WAITING_SHARE = 0.5;
/**
 * What arrives faster than this, in bytes a second, is not paced: round trips are long there for want
 * of processors at the ends, as over the loopback of a busy host.
 */
const RATE_MAX = 250e6;
/** Pace where there is a queue, as a part of what the peer has received meanwhile ... */
const BELOW = 0.95;
/** ... or of so much of the pace: what a thread does that gets no processor says nothing of the network. */
const LEAST_OF_PACE = 0.9;
/** A queue of which more than this is left at the next look does not drain: a step further down. */
const SHRUNK = 0.95;
/** One that does not drain after so many steps is not that of the push: there is no pace ... */
const STEPS_MAX = 4;
/** ... for so many looks, and for twice as many when that was in vain as well, up to the last. */
const REST_LOOKS = 20;
const REST_LOOKS_MAX = 640;
/** What the pace grows by from look to look where there is no queue ... */
const GROWTH = 0.02;
/** ... and up to which that doubles beyond where there was one: the network carries more by now. */
const GROWTH_MAX = 0.5;
/** A pace so far above what is sent limits nothing. */
const IDLE_SHARE = 2;

/** What was seen of the connection since the last look. */
export interface LinkLook {
  /** Time since then, and the part of it that was spent waiting for the socket, in milliseconds. */
  ms: number;
  waitedMs: number;
  /** Bytes that the peer has acknowledged meanwhile. */
  ackedBytes: number;
  /** Round trip, lately and at its shortest, in µs. */
  rttUs: number;
  minRttUs: number;
}

/** Finds the pace at which no queue stands in the network, and follows it. */
export class PaceChooser {
  /** Bytes a second; 0: none. */
  pace = 0;
  /** What the peer received a second when there was a queue last. */
  #knee = 0;
  #growth = GROWTH;
  /** How long a packet waited on the way, in µs. */
  #delayUs = 0;
  /** Looks in a row that saw a queue, and steps down in a row since there is a pace. */
  #queued = 0;
  #steps = 0;
  /** Looks until a pace is chosen again, and of the next rest. */
  #rest = 0;
  #nextRest = REST_LOOKS;

  /** Chooses the pace until the next look. That nothing came through says nothing of a rate. */
  look(look: LinkLook): void {
    if (look.ackedBytes === 0) return;
    if (this.#rest > 0) {
      this.#rest--;
      return;
    }
    const delayUs = look.rttUs - look.minRttUs;
    const queued = delayUs > QUEUE_US + look.minRttUs * QUEUE_SHARE;
    const shrinks = delayUs < SHRUNK * this.#delayUs;
    this.#delayUs = delayUs;
    this.#queued = queued ? this.#queued + 1 : 0;
    const rate = (look.ackedBytes / look.ms) * 1000;
    if (this.pace === 0) this.#consider(rate, look.waitedMs / look.ms);
    else if (!queued) this.#speedUp(rate);
    else if (!shrinks || this.#steps === 0) this.#slowDown(rate);
  }

  #consider(rate: number, waitingShare: number): void {
    if (waitingShare < WAITING_SHARE || rate > RATE_MAX) this.#queued = 0;
    if (this.#queued < QUEUED_LOOKS) return;
    this.#knee = rate;
    this.#stepDown();
  }

  #slowDown(rate: number): void {
    if (this.#steps === STEPS_MAX) {
      this.#giveUp();
      return;
    }
    if (this.#steps === 0) this.#knee = Math.max(rate, this.pace * LEAST_OF_PACE);
    this.#stepDown();
  }

  /** Each step in a row goes further below the same knee: a deep queue takes time to drain. */
  #stepDown(): void {
    this.#steps++;
    this.pace = this.#knee * BELOW ** this.#steps;
    this.#growth = GROWTH;
  }

  #giveUp(): void {
    this.pace = 0;
    this.#steps = 0;
    this.#queued = 0;
    this.#rest = this.#nextRest;
    this.#nextRest = Math.min(2 * this.#nextRest, REST_LOOKS_MAX);
  }

  /** What was only to drain the queue is made up for at once. */
  #speedUp(rate: number): void {
    this.#nextRest = REST_LOOKS;
    if (this.pace > IDLE_SHARE * rate || this.pace > RATE_MAX) {
      this.pace = 0;
    } else if (this.#steps > 1) {
      this.pace = this.#knee * BELOW;
    } else {
      if (this.pace > this.#knee) this.#growth = Math.min(2 * this.#growth, GROWTH_MAX);
      this.pace *= 1 + this.#growth;
    }
    this.#steps = 0;
  }
}
