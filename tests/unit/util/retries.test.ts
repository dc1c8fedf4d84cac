import { expect, test } from "bun:test";
import { Retries } from "../../../src/util/retries.ts";

/** A wait that only an answer ends, not a pause of the default length. */
async function longPause(retries: Retries): Promise<void> {
  // 100, 200, 400 ms: the next pause is 800 ms.
  for (let i = 0; i < 3; i++) expect(await retries.next()).toBe(true);
}

test("pauses grow, and a word ends one at once", async () => {
  const retries = new Retries(60_000);
  const began = performance.now();
  await longPause(retries);
  expect(performance.now() - began).toBeGreaterThanOrEqual(695);
  const next = retries.next();
  retries.now();
  const still = Bun.sleep(400).then(() => "still waiting");
  expect(await Promise.race([next, still])).toBe(true);
});

test("there are no tries when patience is over, or was asked to end", async () => {
  expect(await new Retries(0).next()).toBe(false);
  expect(await new Retries(50).next()).toBe(false);
  const retries = new Retries(60_000);
  const next = retries.next();
  retries.end();
  expect(await next).toBe(false);
  expect(await retries.next()).toBe(false);
});
