/** Which boot of which host this is. */
import { readFileSync } from "node:fs";

/** What tells one boot of one host from every other: clocks compare only within it. */
export function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
}
