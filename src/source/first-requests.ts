/**
 * Seeing what a guest needs first. All that the source ever learns of it are the pages that are asked
 * for, and what is pushed before it is touched is never asked for: so where nothing is recorded yet
 * the push is held back while the guest asks. Each page then comes sooner, as no bulk lies before it.
 */
import { waitWhile } from "../sync/park.ts";
import { SOURCE } from "../report/counters.ts";
import { stopAsked, TIME, WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";

/** How long the push is held back, in milliseconds. */
export interface WatchLimits {
  /** For a guest that has not started. */
  startMs: number;
  /** For one that asks for nothing: it has what it needs first. */
  quietMs: number;
  /** For one that goes on asking, from when its device state is loaded. */
  watchMs: number;
}

const START_MS = 1000;
const QUIET_MS = 200;
const WATCH_MS = 1000;
const LIMITS: WatchLimits = { startMs: START_MS, quietMs: QUIET_MS, watchMs: WATCH_MS };
const LOOK_MS = 1;
const NEVER_WOKEN = new Int32Array(new SharedArrayBuffer(4));

/** Waits while the guest asks for pages. Ends early where there is nothing more to wait for. */
export function watchFirstRequests(shared: SourceShared, limits = LIMITS): void {
  const { control, counters, times, finished } = shared;
  const startedMs = performance.now();
  let loadedMs = Infinity;
  let askedMs = startedMs;
  let asked = 0;
  while (Atomics.load(control, WORD.owed) > 0 && !stopAsked(shared) && !finished.isSet) {
    const nowMs = performance.now();
    const requests = counters.get(SOURCE.requestsReceived);
    if (requests !== asked) [asked, askedMs] = [requests, nowMs];
    if (times[TIME.loaded] === 0) {
      if (nowMs - startedMs >= limits.startMs) return;
    } else {
      loadedMs = Math.min(loadedMs, nowMs);
      const quietMs = nowMs - Math.max(askedMs, loadedMs);
      if (quietMs >= limits.quietMs || nowMs - loadedMs >= limits.watchMs) return;
    }
    waitWhile(NEVER_WOKEN, 0, 0, LOOK_MS);
  }
}
