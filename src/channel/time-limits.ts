/**
 * The time that a peer has for what it has to say at once. ARCHITECTURE.md lists every such limit;
 * where nothing has to be said at once, as between two rounds of precopy, there is none, and only a
 * dead link ends the wait (`tuneTcp`).
 */

/** The slowest link on which an answer of some size is still waited for, in bytes a second. */
export const SLOWEST_LINK_RATE = 64 * 1024;

/**
 * Milliseconds for `bytes` bytes that are sent at once: the link timeout for the peer to begin, and
 * what they take on the slowest link.
 */
export function timeFor(bytes: number, linkTimeoutMs: number): number {
  return linkTimeoutMs + (bytes / SLOWEST_LINK_RATE) * 1000;
}
