/**
 * Waiting in tests: every wait has a limit and says what it waited for. There is no bare sleep; a
 * test waits for the condition it needs.
 */

/** How long a wait lasts where the test names no other limit. */
export const DEFAULT_WAIT_MS = 30_000;

/**
 * The limit of a test that starts programs, to be given as the last argument of `test`: Bun's five
 * seconds are meant for tests that compute something. (bunfig.toml can set no other default, and
 * `setDefaultTimeout` holds for one file only.)
 */
export const LONG_TEST_MS = 90_000;

/** Between two looks of `waitUntil`: short for a test, long for a machine with two cores. */
const LOOK_AGAIN_MS = 5;

/** A wait that ended without what it waited for. */
export class DeadlineError extends Error {
  override readonly name = "DeadlineError";
}

/**
 * What `promise` gives, or a DeadlineError after `limitMs` that says `what` was awaited. The
 * promise itself is not stopped: whoever made it still owns and closes what stands behind it.
 */
export async function withDeadline<T>(
  promise: Promise<T>,
  what: string,
  limitMs = DEFAULT_WAIT_MS,
): Promise<T> {
  const { promise: expired, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(new DeadlineError(`waited ${limitMs} ms in vain for ${what}`));
  }, limitMs);
  try {
    return await Promise.race([promise, expired]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Asks `look` again and again until it gives anything but undefined or false, and returns that.
 * For conditions that nothing announces (a file that grows, a counter of another process).
 */
export async function waitUntil<T>(
  look: () => T | undefined | false | Promise<T | undefined | false>,
  what: string,
  limitMs = DEFAULT_WAIT_MS,
): Promise<T> {
  const endMs = performance.now() + limitMs;
  for (;;) {
    const seen = await look();
    if (seen !== undefined && seen !== false) return seen;
    if (performance.now() >= endMs) {
      throw new DeadlineError(`waited ${limitMs} ms in vain for ${what}`);
    }
    await Bun.sleep(LOOK_AGAIN_MS);
  }
}
