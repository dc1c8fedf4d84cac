/**
 * Who may place pages when. A thread that places bulk pages holds its own lock meanwhile, so that
 * several place side by side; who reads userfault events and notes what they removed holds all of
 * them: no page may be placed between the two, or a discarded page could come back.
 */
import { threadId } from "../../syscalls/process.ts";
import { threadNice } from "../../syscalls/scheduling.ts";
import { PUSH_CHANNELS_MAX } from "../stream/further-channel.ts";
import type { Favour } from "../sync/favour.ts";
import { Mutex } from "../sync/mutex.ts";

/** Shared memory of the locks, one for each channel that bulk pages come on. */
export interface PlacingLocksData {
  locks: SharedArrayBuffer[];
  holders: SharedArrayBuffer;
}

/** Numbers that are noted of a thread: its id, and its nice value. */
const HOLDER_WORDS = 2;

export class PlacingLocks {
  readonly #locks: readonly Mutex[];
  readonly #holders: Int32Array<SharedArrayBuffer>;

  constructor({ locks, holders }: PlacingLocksData) {
    this.#locks = locks.map((lock) => new Mutex(lock));
    this.#holders = new Int32Array(holders);
  }

  /** The lock of whoever places the pages of a channel; 0 is the main one. */
  of(channel: number): Mutex {
    const lock = this.#locks[channel];
    if (lock === undefined) throw new RangeError(`there is no channel ${channel}`);
    return lock;
  }

  /** The calling thread places what comes on a channel from now on. */
  takeChannel(channel: number, thread = threadId(), nice = threadNice()): void {
    Atomics.store(this.#holders, channel * HOLDER_WORDS + 1, nice);
    Atomics.store(this.#holders, channel * HOLDER_WORDS, thread);
  }

  /**
   * Takes all of them. A thread may have been put off its processor with its lock held, and have to wait
   * for its next turn: so it is lent real time.
   */
  lockAll(favour: Pick<Favour, "lend" | "takeBack">): void {
    for (const [channel, lock] of this.#locks.entries()) {
      if (lock.tryLock()) continue;
      const holder = Atomics.load(this.#holders, channel * HOLDER_WORDS);
      if (holder !== 0) favour.lend(holder);
      lock.lockUrgent();
      if (holder !== 0) {
        favour.takeBack(holder, Atomics.load(this.#holders, channel * HOLDER_WORDS + 1));
      }
    }
  }

  unlockAll(): void {
    for (const lock of this.#locks) lock.unlock();
  }
}

export function createPlacingLocks(): PlacingLocksData {
  return {
    locks: Array.from({ length: PUSH_CHANNELS_MAX }, () => new Mutex().shared),
    holders: new SharedArrayBuffer(PUSH_CHANNELS_MAX * HOLDER_WORDS * 4),
  };
}
