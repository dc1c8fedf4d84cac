/** Runs before every test file (bunfig.toml): what all tests have in common. */
import { setDefaultTimeout } from "bun:test";

/**
 * How long one test may take where it names no other limit. Waits have tighter limits of their own,
 * with better messages (`deadline.ts`); this one ends what they overlook.
 */
const TEST_LIMIT_MS = 90_000;

setDefaultTimeout(TEST_LIMIT_MS);
