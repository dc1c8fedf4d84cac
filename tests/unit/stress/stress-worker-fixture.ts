/** A thread that runs one stress worker over memory that is a SharedArrayBuffer. */
import { runStressWorker } from "../../../src/guests/stress/worker-loop.ts";
import type { WorkerOrder } from "./stress-guest.ts";
import { SharedMemory } from "./shared-memory.ts";

declare const self: Worker;

self.onmessage = ({ data }: MessageEvent<WorkerOrder>) => {
  const memory = new SharedMemory(data.memory);
  try {
    runStressWorker(data.setup, data.worker, memory, () => Math.round(performance.now() * 1e6));
    postMessage({ error: undefined });
  } catch (thrown) {
    postMessage({ error: String(thrown) });
  }
};
