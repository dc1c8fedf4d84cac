/** How a thread makes way for events of a userfaultfd, which keep pages from being placed until they are read. */

/**
 * For how long: the thread that reads them, and the guest's own that have begun them, have the processor
 * meanwhile.
 */
const EVENTS_PAUSE_MS = 0.05;

/** Each thread has its own: nobody ever changes it. */
const idle = new Int32Array(new SharedArrayBuffer(4));

/** Leaves the processor to others for a moment. */
export function pauseForEvents(): void {
  Atomics.wait(idle, 0, 0, EVENTS_PAUSE_MS);
}
