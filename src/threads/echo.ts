/**
 * Two threads that hand one thing to and fro, to measure what a hand-over costs: whoever has it
 * passes it on at once. How one waits for it is what is compared.
 */
import { POLL, PollSet } from "../../syscalls/descriptor.ts";
import { check } from "../../syscalls/error.ts";
import { readInto, writeFrom } from "../../syscalls/io.ts";
import { mapScratch } from "../../syscalls/memory.ts";

/** Spinning on a word; parked on a word; parked in poll(2) on a socket, as for page requests. */
export type EchoWay = "spin" | "park" | "poll";

/** What both threads have: the word that says whose turn it is, and an end of the socket each. */
export interface EchoTask {
  way: EchoWay;
  /** Whether it measures, or answers. */
  measures: boolean;
  words: SharedArrayBuffer;
  fd: number;
  rounds: number;
}

const TURN = 0;
/** Whose turn it is: the one who measures, the other. */
const MINE = 0;
const YOURS = 1;

/** Bytes of the one thing in the socket, and the longest that one waits for it. */
const TOKEN_BYTES = 1;
const PATIENCE_MS = 10_000;
const NO_ANSWER = "the other thread does not answer";

/** Loads between two looks at the clock. */
const LOADS_AT_ONCE = 1 << 20;

/** Does its half of all rounds. Nanoseconds of a round, in the mean of all but the first. */
export function echo(task: EchoTask): number {
  const end = task.way === "poll" ? socketEnd(task.fd) : wordEnd(task);
  const half = task.measures
    ? () => {
        end.give(YOURS);
        end.take(MINE);
      }
    : () => {
        end.take(YOURS);
        end.give(MINE);
      };
  // In the first round the other thread may just be starting.
  half();
  const startedNs = Bun.nanoseconds();
  for (let round = 1; round < task.rounds; round++) half();
  return (Bun.nanoseconds() - startedNs) / (task.rounds - 1);
}

interface End {
  give: (turn: number) => void;
  take: (turn: number) => void;
}

function wordEnd({ way, words: shared }: EchoTask): End {
  const words = new Int32Array(shared);
  return {
    give: (turn) => {
      Atomics.store(words, TURN, turn);
      if (way === "park") Atomics.notify(words, TURN);
    },
    take: (turn) => (way === "park" ? park(words, turn) : spin(words, turn)),
  };
}

function park(words: Int32Array<SharedArrayBuffer>, turn: number): void {
  while (Atomics.load(words, TURN) !== turn) {
    const waited = Atomics.wait(words, TURN, turn === MINE ? YOURS : MINE, PATIENCE_MS);
    if (waited === "timed-out") throw new Error(NO_ANSWER);
  }
}

function spin(words: Int32Array<SharedArrayBuffer>, turn: number): void {
  const endMs = performance.now() + PATIENCE_MS;
  do {
    for (let load = 0; load < LOADS_AT_ONCE; load++) {
      if (Atomics.load(words, TURN) === turn) return;
    }
  } while (performance.now() < endMs);
  throw new Error(NO_ANSWER);
}

function socketEnd(fd: number): End {
  const { address } = mapScratch(TOKEN_BYTES);
  const set = new PollSet();
  set.add(fd, POLL.POLLIN);
  return {
    give: () => void check("write", writeFrom(fd, address, TOKEN_BYTES)),
    take: () => {
      if (set.wait(PATIENCE_MS) === 0) throw new Error(NO_ANSWER);
      check("read", readInto(fd, address, TOKEN_BYTES));
    },
  };
}
