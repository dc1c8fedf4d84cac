/**
 * The scheduling of a thread for which a guest waits: favoured by its nice value where the host allows
 * it. On a host whose processors are busy with the very migration, a thread that is woken as one of
 * many waits for milliseconds. Real time (SCHED_FIFO) would be no quicker, and takes from the push.
 */
import { setThreadUsual } from "../../syscalls/scheduling.ts";

/** How a thread is scheduled, from the least to the most favoured; shared as an index. */
export const FAVOURS = ["usual", "nice"] as const;
export type FavourKind = (typeof FAVOURS)[number];

const NICE = -15;

/** Favours the calling thread as the host allows, and notes how in `words[index]`. */
export function favourThread(words: Int32Array<SharedArrayBuffer>, index: number): void {
  const kind: FavourKind = setThreadUsual(NICE) ? "nice" : "usual";
  Atomics.store(words, index, FAVOURS.indexOf(kind));
}

/** How a thread is scheduled that may not have begun yet, as `words[index]` says. */
export function favourOf(words: Int32Array<SharedArrayBuffer>, index: number): FavourKind {
  return FAVOURS[Atomics.load(words, index)] ?? "usual";
}
