/** A guest so large that no channel of several takes all of its pages, and its one RAM block. */
export const LARGE_GUEST_BYTES = 32 * 2 ** 20;
export const STRESS_BLOCK = "stress.ram";

/** What a recovery begins with: the command RECV_BITMAP. */
export const RECOVERY = Buffer.from([8, 0, 10]);
