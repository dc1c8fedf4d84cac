/** How many processors this process may use. */
import { availableParallelism } from "node:os";

/** With fewer a second push channel takes from the guest and from its requests what it brings. */
const PROCESSORS_MIN = 4;
/** Never more by itself: on no host has more been measured. */
const CHANNELS_MAX = 4;

/**
 * Connections for pages that this host has processors for, the main one among them: one for two of
 * them, as the guest and the kernel's part of each connection need theirs.
 */
export function channelsForProcessors(processors = availableParallelism()): number {
  if (processors < PROCESSORS_MIN) return 1;
  return Math.min(CHANNELS_MAX, Math.floor(processors / 2));
}
