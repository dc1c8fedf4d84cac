/** Waits until a process has ended, or nobody wants to know any more. */
import { POLL, PollSet } from "../../syscalls/descriptor.ts";
import type { WatchTask } from "./tasks.ts";
import { serveThread } from "./thread.ts";

/** Whether it has ended. */
function run({ processFd, stopFd }: WatchTask): boolean {
  const poll = new PollSet();
  poll.add(stopFd, POLL.POLLIN);
  poll.add(processFd, POLL.POLLIN);
  // A signal may end a wait early.
  while (poll.wait(Infinity) === 0);
  return poll.ready(1) !== 0;
}

serveThread(run);
