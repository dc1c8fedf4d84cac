/** What it costs to hand something to another thread and to have it wake for it. */
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { makeSocketPair } from "../../syscalls/socket.ts";
import type { EchoTask, EchoWay } from "../threads/echo.ts";
import { Thread } from "../threads/thread.ts";

/** Nanoseconds of one hand-over: half of a round between two threads, in the mean of `rounds`. */
export async function measureHandOver(way: EchoWay, rounds: number): Promise<number> {
  const words = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
  const sockets = makeSocketPair();
  const threads = sockets.map(() => new Thread<EchoTask, never, number>("echo", () => undefined));
  try {
    const runs = threads.map((thread, index) => {
      const task = { way, measures: index === 0, words, fd: sockets[index] ?? -1, rounds };
      return thread.run(task);
    });
    const [roundNs = Number.NaN] = await Promise.all(runs);
    return roundNs / 2;
  } finally {
    for (const thread of threads) thread.end();
    for (const fd of sockets) closeDescriptor(fd);
  }
}
