/**
 * Waiting for a keeper without blocking: a keeper may be stopped, or busy, and who asks it is the thread
 * that answers the operator. The event loop has no wait for a descriptor of ours, so it is looked at from
 * time to time; a keeper that is well answers within a few of these looks.
 */
import { PollSet } from "../../syscalls/descriptor.ts";

/** Between two looks at a descriptor: the first pause, and the longest one. */
const LOOK_MS = 1;
const LOOK_MS_MAX = 20;

let poll: PollSet | undefined;

/** Whether a descriptor is ready for `events` (POLL) now. */
export function isReady(fd: number, events: number): boolean {
  if (poll === undefined) {
    poll = new PollSet();
    poll.add(fd, events);
  } else {
    poll.set(0, fd, events);
  }
  return poll.wait(0) > 0;
}

/**
 * Whether a descriptor becomes ready for `events` (POLL) before `deadline` (performance.now()); false
 * at once when `signal` is aborted.
 */
export async function becomesReady(
  fd: number,
  events: number,
  deadline: number,
  signal?: AbortSignal,
): Promise<boolean> {
  for (let pauseMs = LOOK_MS; !isReady(fd, events); pauseMs = Math.min(LOOK_MS_MAX, pauseMs * 2)) {
    if (signal?.aborted === true || performance.now() >= deadline) return false;
    await Bun.sleep(pauseMs);
  }
  return true;
}
