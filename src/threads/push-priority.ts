/** How threads that push are scheduled. */
import { setThreadUsual, threadNice } from "../../syscalls/scheduling.ts";

/**
 * The push is what nobody waits for: beside others that compute it has a third of their share, and
 * where nobody does, all of it. With less it would hardly get on on a host that is busy.
 */
const PUSH_NICE = 5;

/** Lets whoever a guest waits for, in whatever process, have the processor before this thread. */
export function givePushWay(): void {
  setThreadUsual(Math.max(threadNice(), PUSH_NICE));
}
